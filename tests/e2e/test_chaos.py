"""A short chaos and a few points of the crash matrix, on a stack of their own.

The long forms are commands: `python -m scripts.chaos` and `python -m scripts.crash_matrix`.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.chaos import Chaos
from scripts.crash_matrix import SPEC, Matrix
from scripts.faults import plan
from scripts.faults.disks import Disks
from scripts.faults.ground import SITES, Ground, Shape
from scripts.faults.matrix import met, points, sample

SEED = 4
SHORT = ["kill:lease", "kill:aggregator", "stop:orchestrator", "cut:postgres"]
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    root = Path(tempfile.mkdtemp(prefix="flowerbed-e2e-chaos-"))
    root.chmod(0o755)
    ground = Ground(root, Shape(has_disks=Disks.can_mount()))
    try:
        ground.start()
        yield ground
    finally:
        ground.stop()
        shutil.rmtree(root, ignore_errors=True)


def test_faults_change_no_byte_and_points_of_the_crash_matrix_pass(ground: Ground) -> None:
    """One test, for both share the undisturbed run: its bytes, and the event types it says."""
    matrix = Matrix(ground)
    said = matrix.undisturbed()
    deck = plan.chosen(plan.targets(ground.shape, SITES), SHORT)
    chaos = Chaos(ground, SEED, n_federations=2, batch=2, deck=deck, n_faults=len(deck))
    columns = chaos.run({SPEC: matrix.sha256}, [SPEC])
    assert {column.name: column.findings for column in columns if column.findings} == {}

    for point in sample(SEED, 2, met(points(), said)):
        assert matrix.trial(point).outcome == "same bytes", str(point)
    columns = matrix.check()
    assert {column.name: column.findings for column in columns if column.findings} == {}
