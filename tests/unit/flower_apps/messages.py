"""Real Flower messages for a ClientApp that runs in the test's own process."""

import json
from collections.abc import Sequence
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from flowerbed.flower_apps.registry import load_client_app

Config = dict[str, bool | float | int | str]

CONFIG: Config = {
    "local-epochs": 2,
    "batch-size": 4,
    "learning-rate": 0.05,
    "seed": 11,
    "server-round": 1,
}
HEALTHY = [41, 0, 2, 110, 190, 0, 0, 172, 0, 0, 1, 0, 3]
DISEASED = [67, 1, 4, 160, None, None, 2, 108, 1, 2.6, 2, 3, None]


def ask(
    app: str,
    kind: str,
    arrays: ArrayRecord,
    data: Path,
    config: Config | None = None,
    **node_config: str,
) -> RecordDict:
    """What the app's client answers to a train or evaluate message."""
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({**CONFIG, **(config or {})})})
    context = Context(
        run_id=1,
        node_id=1,
        node_config={"data-path": str(data), **node_config},
        state=RecordDict(),
        run_config={},
    )
    message = Message(content, dst_node_id=1, message_type=kind)
    return load_client_app(app)(message, context).content


def bytes_of(arrays: ArrayRecord) -> dict[str, bytes]:
    return {name: array.numpy().tobytes() for name, array in arrays.items()}


def write_patients(folder: Path, labels: Sequence[int] = (0, 1, 0, 1, 1, 0, 1)) -> Path:
    lines = [
        json.dumps({"features": [30 + n, *(DISEASED if label else HEALTHY)[1:]], "label": label})
        for n, label in enumerate(labels)
    ]
    folder.mkdir(exist_ok=True)
    for part in ("train", "test"):
        (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    return folder
