"""A lineage is complete if every checkpoint was made from one that came before it."""

import pytest

from flowerbed.gateway.lineage import lineage
from flowerbed.gateway.views import Artifact, Folded


def _artifact(name: str, number: int, *parents: str, kind: str = "checkpoint") -> Artifact:
    return Artifact.model_validate(
        {
            "federation_id": "fed", "tenant": "acme", "sha256": name, "uri": f"s3://b/{name}",
            "size": 1, "kind": kind, "round_number": number, "attempt": 1, "exchange": "train",
            "parents": parents, "metrics": {}, "channels": [], "revoked_at": None,
            "revoked_reason": "", "recorded_at": "2026-01-01T12:00:00Z",
        }
    )  # fmt: skip


BASE = _artifact("base", 0, kind="base")
ONE = _artifact("one", 1, "base")
TWO = _artifact("two", 2, "one")
STATE = _artifact("state", 1, "base", kind="state")


def test_checkpoints_are_in_the_order_of_rounds_whatever_came_first() -> None:
    folded = {(1, 1): [Folded(client_id="c", place=0, sha256=None, weight=3)]}

    found = lineage("fed", [TWO, STATE, BASE, ONE], folded)

    assert [node.sha256 for node in found.checkpoints] == ["base", "one", "two"]
    assert found.is_complete
    assert found.checkpoints[1].folded == folded[1, 1]


@pytest.mark.parametrize(
    "artifacts",
    [[], [ONE], [BASE, TWO], [BASE, ONE, _artifact("two", 2)], [BASE, _artifact("x", 1, "x")]],
)
def test_a_missing_parent_is_a_gap(artifacts: list[Artifact]) -> None:
    assert not lineage("fed", artifacts, {}).is_complete


def test_a_round_that_changed_nothing_keeps_the_lineage_whole() -> None:
    assert lineage("fed", [BASE, _artifact("base", 1, "base")], {}).is_complete
