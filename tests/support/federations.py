"""A small federation's documents, members and events, for tests of the orchestrator."""

from datetime import UTC, datetime, timedelta
from typing import Any

from flowerbed.contracts.federation import FederationCreated, FederationStarted
from flowerbed.contracts.problems import parse_spec
from flowerbed.contracts.spec import FederationSpec
from flowerbed.contracts.values import ArtifactRef
from flowerbed.orchestrator.state import Member, Pool

FED = "fed-0123456789abcdef"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CODE = "c" * 64


def document(**spec: Any) -> dict[str, Any]:
    """A FederationSpec as a person writes it, with parts of `spec` replaced."""
    return {
        "apiVersion": "flowerbed/v1",
        "metadata": {"name": "demo", "tenant": "acme"},
        "spec": {
            "app": "builtin:hospital",
            "model_ref": {"uri": "builtin:hospital"},
            "num_rounds": 2,
            "min_clients": 2,
            "train": {"seed": 7},
            "round_policy": {"deadline_seconds": 60.0, "max_attempts": 2},
            **spec,
        },
    }


def spec_of(**spec: Any) -> FederationSpec:
    return parse_spec(document(**spec))


def ref(name: str) -> ArtifactRef:
    digest = (name.encode().hex() * 64)[:64]
    return ArtifactRef(uri=f"s3://flowerbed/checkpoints/{digest}", sha256=digest, size=10)


BASE = ref("base")


def member(name: str, epoch: int = 1) -> Member:
    return Member(
        client_id=f"client-{name}",
        lease_id=f"lease-{name}",
        lease_epoch=epoch,
        dataset_sha256=(name.encode().hex() * 64)[:64],
    )


def pool(*names: str) -> Pool:
    return tuple(member(name) for name in names)


def created(**spec: Any) -> FederationCreated:
    return FederationCreated(
        federation_id=FED,
        submission_id="s1",
        spec=spec_of(**spec).document(),
        code_hash=CODE,
        join_deadline_at=NOON + timedelta(hours=1),
    )


def started(n_clients: int = 2) -> FederationStarted:
    return FederationStarted(federation_id=FED, base=BASE, n_clients=n_clients)
