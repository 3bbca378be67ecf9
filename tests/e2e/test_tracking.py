"""A real federation's rounds reach a tracker through the feed as they end, once each."""

import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.e2e.documents import hospital
from tests.support.field import FLOWERBED, Field, until


@pytest.mark.skipif(
    find_spec("tensorboardX") is None,
    reason="tensorboardX is not installed (pip install tensorboardX)",
)
def test_what_rounds_measured_is_in_tensorboard_without_names(field: Field, tmp_path: Path) -> None:
    from flowerbed.cli.tracking.to_tensorboard import events

    federation = field.submit(hospital(num_rounds=2))
    command = [
        FLOWERBED, "track", "--to", f"tensorboard:{tmp_path / 'runs'}",
        "--federation", federation, "--cursor", str(tmp_path / "cursor.json"),
        "--state-dir", str(field.stack.state_dir),
    ]  # fmt: skip

    def told() -> dict[tuple[str, int], float]:
        return {
            (value.tag, event.step): value.simple_value
            for path in (tmp_path / "runs").rglob("events.*")
            for event in events(path)
            for value in event.summary.value
        }

    with (tmp_path / "log").open("w") as log:
        following = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
        try:
            done = field.completed(federation)
            until(lambda: ("round/updates", 2) in told(), "both rounds are told", 60)
        finally:
            following.send_signal(signal.SIGTERM)
            code = following.wait(30)
    assert code == 0, (tmp_path / "log").read_text()

    found = told()
    for one in done["rounds"]:
        accuracy = found["eval/accuracy", one["round_number"]]
        assert accuracy == pytest.approx(one["evaluation"]["accuracy"])
    for client in done["clients"]:
        assert (f"{client['dataset']}/train-train-loss", 2) in found
        (path,) = (tmp_path / "runs").rglob("events.*")
        assert client["client_id"].encode() not in path.read_bytes()
    again = subprocess.run([*command, "--once"], capture_output=True, text=True, timeout=60)
    assert "0 new rounds told" in again.stdout, again.stderr
