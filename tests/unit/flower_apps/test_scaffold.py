"""SCAFFOLD at the clients: steps are corrected, and the control variate is the paper's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from safetensors.numpy import load_file, save_file

from flowerbed.flower_apps import messages
from flowerbed.flower_apps.hospital import task
from flowerbed.flower_apps.registry import load_client_app
from tests.unit.flower_apps.messages import CONFIG, write_patients

RATE = 0.05


def answered(base: Path, site: Path, state: RecordDict) -> dict[str, Any]:
    """The update's file after a training from the base's."""
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
    config = {**CONFIG, "learning-rate": RATE}
    message = messages.order_message(base, config, "train", 1)
    context = Context(
        run_id=1, node_id=1, node_config={"data-path": str(site)}, state=state, run_config={}
    )
    reply = load_client_app("hospital")(message, context)
    messages.write_arrays(reply, site / "update")
    return load_file(site / "update")


def based(path: Path, control: float) -> Path:
    start = {name: one.numpy() for name, one in task.initial_arrays({"seed": 7}).items()}
    draw = np.random.default_rng(1)
    c = {
        f"scaffold/{name}": (control * draw.standard_normal(one.shape)).astype(np.float32)
        for name, one in start.items()
    }
    save_file({**start, **c}, path)
    return path


def test_what_changes_of_its_control_is_option_two_of_the_paper(tmp_path: Path) -> None:
    site, state = write_patients(tmp_path / "site"), RecordDict()
    n_steps = 2 * 2  # epochs, and batches of 4 in 7 rows
    own: dict[str, Any] = {}
    for number, control in enumerate((0.0, 0.1, 0.2)):
        base = load_file(based(tmp_path / "base", control))
        update = answered(tmp_path / "base", site, state)
        assert update.keys() == base.keys()
        for name in task.Net().state_dict():
            c, before = base[f"scaffold/{name}"], own.get(name, 0)
            own[name] = before - c + (base[name] - update[name]) / (n_steps * RATE)
            np.testing.assert_allclose(
                update[f"scaffold/{name}"], own[name] - before, rtol=1e-4, atol=1e-5
            )
        assert number or all(np.any(update[f"scaffold/{name}"]) for name in own)
    kept = state.array_records["scaffold"].to_torch_state_dict()
    for name, one in own.items():
        np.testing.assert_allclose(kept[name].numpy(), one, rtol=1e-4, atol=1e-4)


def test_a_step_goes_along_the_corrected_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step from the same base with c_i = 0: apart by eta times c."""
    site = write_patients(tmp_path / "site")
    monkeypatch.setitem(CONFIG, "local-epochs", 1)
    monkeypatch.setitem(CONFIG, "batch-size", 100)
    plain = answered(based(tmp_path / "plain", 0.0), site, RecordDict())
    base = load_file(based(tmp_path / "base", 0.3))
    corrected = answered(tmp_path / "base", site, RecordDict())
    for name in task.Net().state_dict():
        wanted = plain[name] - RATE * base[f"scaffold/{name}"]
        np.testing.assert_allclose(corrected[name], wanted, rtol=1e-5, atol=1e-6)


def test_the_app_sees_its_model_alone_and_an_evaluation_too(tmp_path: Path) -> None:
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
    message = messages.order_message(based(tmp_path / "base", 0.1), CONFIG, "evaluate", 1)
    assert list(message.content["arrays"]) == list(message.content["control"])
    context = Context(
        run_id=1, node_id=1, node_config={"data-path": str(write_patients(tmp_path / "site"))},
        state=RecordDict(), run_config={},
    )  # fmt: skip
    assert "accuracy" in load_client_app("hospital")(message, context).content["metrics"]
