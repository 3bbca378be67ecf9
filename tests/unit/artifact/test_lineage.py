"""Rules of a federation's lineage."""

from typing import Any

import pytest

from flowerbed.artifact.decider import (
    ArtifactDiffers,
    ArtifactIsRevoked,
    ArtifactUnknown,
    PromoteArtifact,
    RecordArtifact,
    RevokeArtifact,
    lineage,
)
from flowerbed.contracts.artifact import ArtifactPromoted, ArtifactRecorded, ArtifactRevoked
from flowerbed.contracts.values import ArtifactRef
from flowerbed.events.testing import given

FED = "fed-1"
BASE, NEXT = "a" * 64, "b" * 64


def ref(sha256: str) -> ArtifactRef:
    return ArtifactRef(
        uri=f"s3://flowerbed/checkpoints/{sha256}.safetensors", sha256=sha256, size=9
    )


def place(round_number: int, sha256: str, **more: Any) -> dict[str, Any]:
    return {
        "federation_id": FED,
        "round_number": round_number,
        "attempt": 1,
        "exchange": "train" if round_number else "initialize",
        "kind": "checkpoint" if round_number else "base",
        "artifact": ref(sha256),
        **more,
    }


RECORDED = ArtifactRecorded(**place(0, BASE))
PROMOTE = PromoteArtifact(federation_id=FED, sha256=BASE, channel="stable")
PROMOTED = ArtifactPromoted(federation_id=FED, sha256=BASE, channel="stable")
REVOKE = RevokeArtifact(federation_id=FED, sha256=BASE, reason="trained on the wrong data")
REVOKED = ArtifactRevoked(federation_id=FED, sha256=BASE, reason="trained on the wrong data")


def test_a_verified_artifact_is_recorded_with_its_parents_and_metrics() -> None:
    more = {"parents": (BASE,), "n_updates": 4, "metrics": {"train-loss": 0.5}}
    given(lineage, RECORDED).when(RecordArtifact(**place(1, NEXT, **more))).then(
        ArtifactRecorded(**place(1, NEXT, **more))
    )


def test_recording_twice_changes_nothing() -> None:
    given(lineage, RECORDED).when(RecordArtifact(**place(0, BASE))).then_nothing()


def test_a_place_never_gets_other_bytes() -> None:
    given(lineage, RECORDED).when(RecordArtifact(**place(0, NEXT))).then_rejected(
        ArtifactDiffers, match="round 0 attempt 1 already has base a+, not b+"
    )


def test_checkpoint_and_state_of_one_round_stand_side_by_side() -> None:
    checkpoint = ArtifactRecorded(**place(1, NEXT))
    given(lineage, checkpoint).when(RecordArtifact(**place(1, BASE, kind="state"))).then(
        ArtifactRecorded(**place(1, BASE, kind="state"))
    )


def test_a_known_artifact_is_promoted() -> None:
    given(lineage, RECORDED).when(PROMOTE).then(PROMOTED)


def test_promoting_twice_changes_nothing() -> None:
    given(lineage, RECORDED, PROMOTED).when(PROMOTE).then_nothing()


def test_a_channel_moves_on_and_back() -> None:
    second = ArtifactRecorded(**place(1, NEXT))
    moved = ArtifactPromoted(federation_id=FED, sha256=NEXT, channel="stable")
    given(lineage, RECORDED, second, PROMOTED, moved).when(PROMOTE).then(PROMOTED)


@pytest.mark.parametrize("command", [PROMOTE, REVOKE])
def test_an_unknown_artifact_is_not_found(command: PromoteArtifact | RevokeArtifact) -> None:
    given(lineage).when(command).then_rejected(ArtifactUnknown, match="no artifact a+")


def test_a_revoked_artifact_is_not_promoted() -> None:
    given(lineage, RECORDED, REVOKED).when(PROMOTE).then_rejected(ArtifactIsRevoked)


def test_revoking_twice_changes_nothing() -> None:
    given(lineage, RECORDED).when(REVOKE).then(REVOKED)
    given(lineage, RECORDED, REVOKED).when(REVOKE).then_nothing()


def test_a_channel_that_pointed_to_a_revoked_artifact_points_nowhere() -> None:
    state = lineage.replay([RECORDED, PROMOTED, REVOKED])
    assert state.channels == {}
