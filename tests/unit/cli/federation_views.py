"""A federation's JSON as the gateway answers it, for the command line's tests."""

from typing import Any

FED = "fed-0123456789abcdef"
AT = "2026-01-01T12:00:00Z"
LATER = "2026-01-01T12:01:30Z"
COUNTS = {
    "asked": 0, "submitted": 0, "accepted": 0, "rejected": 0, "quarantined": 0, "failed": 0,
}  # fmt: skip


def digest(name: str) -> str:
    return (name.encode().hex() * 64)[:64]


def a_round(
    number: int, status: str = "completed", attempt: int = 1, **more: Any
) -> dict[str, Any]:
    is_done = status == "completed"
    return {
        "round_number": number, "attempt": attempt, "status": status, "n_cohort": 2,
        "n_required": 2, "code": "", "reason": "", "evaluation_error": "",
        "training": {} if status in ("training", "failed") else {"train-loss": 0.5, "zeta": 1.0},
        "evaluation": {"accuracy": 0.75, "num-examples": 30.0} if is_done else {},
        "total_seconds": 2.5 if is_done else None, "train_seconds": 1.5 if is_done else None,
        "evaluate_seconds": 0.5 if is_done else None,
        "aggregated_at": AT if is_done else None, "evaluation_started_at": AT if is_done else None,
        "train_updates": {**COUNTS, "accepted": 0 if status == "training" else 2},
        "evaluate_updates": COUNTS,
        **more,
    }  # fmt: skip


def a_client(name: str, status: str = "joined", **more: Any) -> dict[str, Any]:
    return {
        "client_id": name, "status": status, "dataset": f"hospital-{name}", "tags": ["eu"],
        "reason": "", **more,
    }  # fmt: skip


def an_artifact(name: str, number: int, kind: str = "checkpoint") -> dict[str, Any]:
    return {
        "federation_id": FED, "tenant": "acme", "sha256": digest(name), "kind": kind,
        "uri": f"s3://flowerbed/checkpoints/{digest(name)}.safetensors", "size": 9,
        "round_number": number, "attempt": 1, "channels": ["stable"], "revoked_at": None,
        "recorded_at": AT, "parents": [],
    }  # fmt: skip


def a_federation(status: str = "running", **more: Any) -> dict[str, Any]:
    return {
        "federation_id": FED, "tenant": "acme", "name": "demo", "status": status,
        "n_rounds": 2, "n_rounds_completed": 0, "code": "", "reason": "", "waiting_for": None,
        "created_at": AT, "started_at": AT, "ended_at": None, "problems": [], "final": None,
        "clients": [], "rounds": [], "artifacts": [], **more,
    }  # fmt: skip


def completed(**more: Any) -> dict[str, Any]:
    final = {"uri": "s3://flowerbed/checkpoints/x", "sha256": digest("two")}
    return a_federation(
        "completed", n_rounds_completed=2, ended_at=LATER, final=final,
        clients=[a_client("client-a", "released")], rounds=[a_round(1), a_round(2)], **more,
    )  # fmt: skip
