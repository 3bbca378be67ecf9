"""The hospital app that ships with the product, unchanged, in the runner's own worker."""

import hashlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from flowerbed.flower_apps.hospital.features import WIDTH
from flowerbed.flower_apps.nursery import Nursery
from flowerbed.runner.dataset import Dataset
from flowerbed.runner.pipe import Hello, Request
from flowerbed.runner.warm import WORKER_COMMAND, Worker, environment
from flowerbed.runner.work_folder import WorkFolder


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    folder = tmp_path / "hospital"
    folder.mkdir()
    chance = random.Random(1)
    for name, count in (("train", 40), ("test", 12)):
        with (folder / f"{name}.jsonl").open("w") as file:
            for row in range(count):
                features = [chance.randint(30, 80), row % 2, 1 + row % 4, 120, *[None] * 9]
                file.write(json.dumps({"features": features, "label": int(row % 4 == 3)}) + "\n")
    return folder


def initial_model() -> dict[str, np.ndarray]:
    """What the app's model is made of, without loading torch in this process."""
    chance = np.random.default_rng(7)
    shapes = {
        "hidden.weight": (16, WIDTH), "hidden.bias": (16,),
        "output.weight": (1, 16), "output.bias": (1,),
    }  # fmt: skip
    return {
        name: chance.normal(size=shape, scale=0.1).astype(np.float32)
        for name, shape in shapes.items()
    }


async def test_hospital_trains_and_evaluates_to_the_same_bytes_every_time(
    hospital: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base.safetensors"
    base.write_bytes(save(initial_model()))
    hello = Hello(app="hospital", data_path=str(hospital), run_id=1, node_id=2)
    nursery = Nursery(WORKER_COMMAND, environment(os.environ))
    worker, other = Worker(hello), Worker(hello, nursery)

    def folder(name: str) -> WorkFolder:
        made = WorkFolder(tmp_path / "work" / name)
        made.make()
        return made

    train: Callable[[str], Request] = lambda name: Request(  # noqa: E731
        message_type="train", base_path=str(base), folder=str(folder(name).path), has_update=True,
        seed=3,
        config={"local-epochs": 3, "batch-size": 8, "learning-rate": 0.05, "seed": 3,
                "server-round": 1},
    )  # fmt: skip
    try:
        await worker.preload()
        first_pid = worker.pid
        first = await worker.run(train("first"))
        evaluated = await worker.run(
            Request(
                message_type="evaluate", base_path=str(folder("first").update), has_update=False,
                folder=str(folder("evaluated").path),
                config={}, seed=0,
            )
        )  # fmt: skip
        assert worker.pid == first_pid, "one warm process"
        second = await other.run(train("second"))
    finally:
        await worker.close()
        await other.close()
        await nursery.close()
    assert first.sha256 == second.sha256, "forked or not"
    update = folder("first").update.read_bytes()
    assert (hashlib.sha256(update).hexdigest(), len(update)) == (first.sha256, first.size)
    before, after = load(base.read_bytes()), load(update)
    assert before.keys() == after.keys()
    assert not np.array_equal(before["output.weight"], after["output.weight"])
    assert (first.metrics["num-examples"], evaluated.metrics["num-examples"]) == (40, 12)
    assert {"eval-loss", "accuracy", "auroc"} <= evaluated.metrics.keys()
    assert Dataset.open(f"local:{hospital}").reference().label.startswith("dataset-")
