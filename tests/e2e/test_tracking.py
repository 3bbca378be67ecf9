"""A real federation's rounds reach a tracker through the feed, once each."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flowerbed.cli import main as cli
from tests.e2e.documents import hospital
from tests.support.field import Field


@pytest.mark.skipif(
    find_spec("tensorboardX") is None,
    reason="tensorboardX is not installed (pip install tensorboardX)",
)
def test_what_rounds_measured_is_in_tensorboard_without_names(field: Field, tmp_path: Path) -> None:
    from flowerbed.cli.tracking.to_tensorboard import events

    federation = field.submit(hospital(num_rounds=2))
    done = field.completed(federation)

    for said in ("2 new rounds", "0 new rounds"):
        told = CliRunner().invoke(
            cli.app,
            [
                "track", "--once", "--to", f"tensorboard:{tmp_path / 'runs'}",
                "--federation", federation, "--cursor", str(tmp_path / "cursor.json"),
                "--state-dir", str(field.stack.state_dir),
            ],
        )  # fmt: skip
        assert told.exit_code == 0 and said in told.output, told.output

    (path,) = (tmp_path / "runs").rglob("events.*")
    found = {
        (value.tag, event.step): value.simple_value
        for event in events(path)
        for value in event.summary.value
    }
    for one in done["rounds"]:
        accuracy = found["eval/accuracy", one["round_number"]]
        assert accuracy == pytest.approx(one["evaluation"]["accuracy"])
    for client in done["clients"]:
        assert (f"{client['dataset']}/train-train-loss", 2) in found
        assert client["client_id"].encode() not in path.read_bytes()
