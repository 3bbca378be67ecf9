"""Apps that do not ship with us: fetched, held against their digest, run where the site says."""

import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joserfc.jwk import OKPKey
from safetensors.numpy import load, save

from flowerbed.contracts.values import DatasetRef
from flowerbed.runner import agent as agent_module
from flowerbed.runner.errors import BadInput
from flowerbed.runner.interpreter import chosen_python, worker_command
from flowerbed.runner.publishers import make_key, name_of, sign
from flowerbed.runner.settings import AgentSettings
from flowerbed.runner.site_policy import SitePolicy
from flowerbed.runner.state import StateDir
from flowerbed.runner.status import read_status
from tests.integration.runner.conftest import BASE, AgentThread
from tests.integration.runner.control_plane import ControlPlane, wait_for
from tests.support.apps import bundle, digest

Start = Callable[[], AgentThread]
RAW = bundle()
OWN = {"app": f"fab:{digest(RAW)}", "code_hash": digest(RAW)}


@pytest.fixture(autouse=True)
def _looks_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for pause in ("PASSING_PAUSE", "REFUSED_PAUSE"):
        monkeypatch.setattr(agent_module, pause, 0.2)


@pytest.fixture
def twelve() -> bytes:
    return save({str(place): np.full(2, place, np.float32) for place in range(12)})


def offer(control_plane: ControlPlane, raw: bytes = RAW, **changes: Any) -> None:
    path = f"/apps/{OWN['code_hash']}.fab"
    control_plane.files[path] = raw
    download = {"url": control_plane.store.url + path}
    control_plane.offer(**{**OWN, "app_download": download, **changes})


def allow(state: StateDir, **rules: Any) -> None:
    SitePolicy.model_validate(rules or {"apps": [OWN["code_hash"]]}).save(state)


def test_a_pushed_app_is_fetched_and_trained(
    control_plane: ControlPlane,
    reference: DatasetRef,
    start_agent: Start,
    enrolled: StateDir,
    twelve: bytes,
) -> None:
    allow(enrolled)
    offer(control_plane, hyper_parameters={"local_epochs": 2, "lr": 1})
    sha256 = reference.sha256
    control_plane.orders = [
        control_plane.order(twelve, dataset_sha256=sha256, config={"lr": 0.25}, **OWN),
        control_plane.order(
            twelve, dataset_sha256=sha256, exchange="evaluate", message_type="evaluate", **OWN
        ),
    ]
    agent = start_agent()
    wait_for(lambda: len(control_plane.reports) == 2, "two reports")
    (_, trained), (_, evaluated) = control_plane.reports
    update = load(next(v for k, v in control_plane.files.items() if k.startswith("/updates/")))
    assert {name: array[0] for name, array in update.items()} == {str(n): n + 1 for n in range(12)}
    assert (trained.metrics["first"], trained.metrics["last"]) == (0.0, 11.0), "a list has an order"
    assert (trained.metrics["lr"], trained.metrics["told"]) == (1.0, 0.25)
    assert (trained.n_examples, evaluated.metrics["eval_loss"]) == (3, 0.25)
    (unpacked,) = [path for path in enrolled.apps.iterdir() if path.is_dir()]
    assert (unpacked / "drift/task.py").is_file()
    agent.stop()
    assert not unpacked.exists(), "it goes with its lease"
    status = read_status(enrolled)
    assert status is not None and status.last_error is None


def test_a_site_refuses_what_its_policy_does_not_allow_until_it_does(
    control_plane: ControlPlane,
    reference: DatasetRef,
    start_agent: Start,
    enrolled: StateDir,
    twelve: bytes,
) -> None:
    offer(control_plane)
    agent = start_agent()
    wait_for(lambda: control_plane.declines, "a refusal")
    ((code, detail),) = control_plane.declines
    assert code == "policy-app"
    assert detail == f"the site's policy does not allow it: {OWN['app']} is not among apps"
    status = read_status(enrolled)
    assert status is not None and status.last_error is not None
    assert "policy-app" in status.last_error.message, "the site's operator sees it too"
    assert not list(enrolled.apps.glob("*")), "it was not even fetched"
    allow(enrolled)
    order = control_plane.order(twelve, dataset_sha256=reference.sha256, **OWN)
    control_plane.orders = [order]
    wait_for(lambda: control_plane.reports, "a report")
    SitePolicy().save(enrolled)
    control_plane.orders = [
        control_plane.order(twelve, dataset_sha256=reference.sha256, round_number=2, **OWN)
    ]
    wait_for(lambda: control_plane.failures, "a refused order")
    ((_, failure),) = control_plane.failures
    assert failure.code == "policy-app", "what is taken back holds from the next order on"
    agent.stop()


def test_a_site_runs_what_a_publisher_that_it_trusts_has_signed(
    control_plane: ControlPlane,
    reference: DatasetRef,
    start_agent: Start,
    enrolled: StateDir,
    twelve: bytes,
    tmp_path: Path,
) -> None:
    key = make_key(tmp_path / "publisher.pem")
    signed = sign(RAW, key)
    own: dict[str, Any] = {"app": f"fab:{digest(signed)}", "code_hash": digest(signed)}
    path = f"/apps/{digest(signed)}.fab"
    control_plane.files[path] = signed
    allow(enrolled, publishers=(name_of(OKPKey.generate_key("Ed25519")),))
    control_plane.offer(**own, app_download={"url": control_plane.store.url + path})
    agent = start_agent()
    wait_for(lambda: control_plane.declines, "a refusal")
    assert "none of publishers has signed it" in control_plane.declines[0][1]
    assert not [one for one in enrolled.apps.iterdir() if one.is_dir()], "nothing is unpacked"
    allow(enrolled, publishers=(name_of(key),))
    control_plane.orders = [control_plane.order(twelve, dataset_sha256=reference.sha256, **own)]
    wait_for(lambda: control_plane.reports, "a report")
    SitePolicy().save(enrolled)
    control_plane.orders = [
        control_plane.order(twelve, dataset_sha256=reference.sha256, round_number=2, **own)
    ]
    wait_for(lambda: control_plane.failures, "a refused order")
    agent.stop()


def test_epochs_are_bounded_by_the_site_over_rounds(
    control_plane: ControlPlane, reference: DatasetRef, start_agent: Start, enrolled: StateDir
) -> None:
    allow(enrolled, max_epochs=3)
    control_plane.offer()
    config = {"local-epochs": 2}
    control_plane.orders = [
        control_plane.order(BASE, dataset_sha256=reference.sha256, round_number=n, config=config)
        for n in (1, 2)
    ]
    start_agent()
    wait_for(lambda: control_plane.failures, "a refused order")
    ((_, failure),) = control_plane.failures
    assert failure.code == "policy-epochs"
    assert "2 epochs trained, 2 ordered, max_epochs 3" in failure.detail
    assert len(control_plane.reports) == 1


def test_a_site_keeps_its_labels_entropy_to_itself_asked_or_not(
    control_plane: ControlPlane, reference: DatasetRef, start_agent: Start, enrolled: StateDir
) -> None:
    allow(enrolled, label_entropy=False)
    control_plane.offer()
    told: list[dict[str, Any]] = [{"behave": "tells-entropy"}, {"label-entropy": True}]
    control_plane.orders = [
        control_plane.order(BASE, dataset_sha256=reference.sha256, round_number=n, config=config)
        for n, config in enumerate(told, start=1)
    ]
    start_agent()
    wait_for(lambda: control_plane.failures, "a refused order")
    ((_, report),) = control_plane.reports
    assert "label-entropy" not in report.metrics and "train-loss" in report.metrics
    ((_, failure),) = control_plane.failures
    assert failure.code == "policy-disclosure"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (bundle({"drift/task.py": "import os"}), "code-hash"),
        (RAW + b"0", "code-hash"),
        (None, "app-not-available"),
    ],
)
def test_other_bytes_than_the_named_ones_are_not_run(
    control_plane: ControlPlane, start_agent: Start, enrolled: StateDir,
    raw: bytes | None, code: str,
) -> None:  # fmt: skip
    allow(enrolled, any_app=True)
    offer(control_plane, raw or b"")
    if raw is None:
        control_plane.files.clear()
    start_agent()
    wait_for(lambda: control_plane.declines, "a refusal")
    assert control_plane.declines[0][0] == code
    assert not control_plane.claims
    assert not list(enrolled.apps.glob("*"))


def test_a_policy_that_cannot_be_read_allows_nothing(
    control_plane: ControlPlane, start_agent: Start, enrolled: StateDir
) -> None:
    enrolled.policy.write_text("{")
    control_plane.offer()
    start_agent()
    wait_for(lambda: control_plane.declines, "a refusal")
    assert control_plane.declines == [("policy-unreadable", "the site's policy cannot be read")]


# --- where it runs ----------------------------------------------------------


@pytest.fixture
def own_python(tmp_path: Path) -> Iterator[str]:
    """An environment of the site's own: it has Flower, and no Flowerbed."""
    place = tmp_path / "site-env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    ours = Path(sysconfig.get_path("purelib"))
    theirs = next(place.glob("lib/python*/site-packages"))
    for path in ours.iterdir():
        if not path.name.endswith(".pth") and "flowerbed" not in path.name:
            (theirs / path.name).symlink_to(path)
    python = place / "bin" / "python"
    tried = subprocess.run([python, "-c", "import flowerbed"], check=False, capture_output=True)
    assert tried.returncode != 0
    yield str(python)


def test_an_app_runs_in_the_environment_that_the_site_chose(
    control_plane: ControlPlane,
    reference: DatasetRef,
    enrolled: StateDir,
    twelve: bytes,
    own_python: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tests.integration.runner import conftest

    monkeypatch.setattr(conftest, "WORKER_COMMAND", None)
    settings = AgentSettings.load(enrolled)
    chosen = chosen_python(own_python)
    more: dict[str, Any] = {"python": chosen, "node_config": {"shift": 5}}
    AgentSettings(dataset=settings.dataset, task="heart", **more).save(enrolled)
    allow(enrolled)
    offer(control_plane)
    control_plane.orders = [control_plane.order(twelve, dataset_sha256=reference.sha256, **OWN)]
    agent = AgentThread(enrolled)
    try:
        wait_for(lambda: control_plane.reports or control_plane.failures, "an answer")
    finally:
        agent.stop()
    assert control_plane.failures == []
    ((_, report),) = control_plane.reports
    assert report.metrics["shift"] == 5
    place = str(Path(own_python).parents[1])
    said = wait_for(lambda: [line for line in control_plane.said if "runs in" in line], "a line")
    assert place not in said[0], "where the site keeps things is scrubbed"
    assert worker_command(chosen)[0] == own_python


def test_what_is_no_python_for_flower_apps_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no program"):
        chosen_python(str(tmp_path / "python"))
    script = tmp_path / "not-python"
    script.write_text("#!/bin/sh\nexit 3\n")
    script.chmod(0o755)
    with pytest.raises(BadInput, match="no Python that runs"):
        chosen_python(str(script))
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    with pytest.raises(BadInput, match="lacks flwr numpy pydantic safetensors"):
        chosen_python(str(bare / "bin" / "python"))
