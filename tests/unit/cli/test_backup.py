"""What `flowerbed backup` and `restore` say, and how they end, with nothing to do."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flowerbed.cli.main import app
from flowerbed.cli.output import sized

run = CliRunner()


def test_without_a_stack_there_is_nothing_to_back_up(tmp_path: Path) -> None:
    done = run.invoke(app, ["backup", str(tmp_path / "b"), "--state-dir", str(tmp_path / "s")])
    assert (done.exit_code, done.stdout) == (3, "")
    assert "no stack runs" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_a_backup_there_is_nothing_to_restore(tmp_path: Path) -> None:
    done = run.invoke(app, ["restore", str(tmp_path / "b"), "--state-dir", str(tmp_path / "s")])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "holds no complete backup" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("n_bytes", "told"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (5 << 30, "5.0 GiB"),
        (1 << 41, "2048.0 GiB"),
    ],
)
def test_sizes_are_told_in_units_that_people_read(n_bytes: int, told: str) -> None:
    assert sized(n_bytes) == told
