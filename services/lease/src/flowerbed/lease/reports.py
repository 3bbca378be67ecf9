"""What a client reports, against what it was ordered."""

from typing import Any

from flowerbed.contracts.door import WorkReport
from flowerbed.contracts.round import RoundEvaluationStarted
from flowerbed.contracts.server_app import MessageAnswered, MessagesPushed
from flowerbed.contracts.update import UpdateFailed, UpdateSubmitted
from flowerbed.events.database import Connection
from flowerbed.events.errors import Rejected
from flowerbed.lease import federations, terms
from flowerbed.lease.leases import LeaseLost
from flowerbed.lease.projections.leases import Lease
from flowerbed.lease.work import Work


class ReportRefused(Rejected):
    """The report does not fit the work: with an update where none was asked for, or without."""

    code = "report-refused"
    status = 422


async def check_fits(tx: Connection, held: Lease, owed: Work, report: WorkReport) -> None:
    """An update or a reply lies where the order said; an evaluation has none."""
    if isinstance(owed.exchange, RoundEvaluationStarted):
        if report.artifact is not None:
            raise ReportRefused(f"{owed.exchange.exchange} work needs no update")
        return
    federation = await federations.find(tx, held.federation_id)
    if federation is None:
        raise LeaseLost("the federation is over")
    ordered = terms.upload_uri(federation.spec, owed.exchange, held.client_id)
    named = None if report.artifact is None else report.artifact.uri
    if named != ordered:
        raise ReportRefused(f"the update was ordered at {ordered}, not {named}")


def answered(
    held: Lease, owed: Work, epoch: int, report: WorkReport
) -> UpdateSubmitted | MessageAnswered:
    """The fact that the work is done."""
    if isinstance(owed.exchange, MessagesPushed):
        return MessageAnswered(
            **_of_message(held, owed, epoch),
            content=report.artifact,
            train_seconds=report.train_seconds,
        )
    return UpdateSubmitted(
        **identity(held, owed, epoch),
        artifact=report.artifact,
        n_examples=report.n_examples,
        metrics=report.metrics,
        train_seconds=report.train_seconds,
        **measures(report),
    )


def failed(
    held: Lease, owed: Work, epoch: int, code: str, detail: str
) -> UpdateFailed | MessageAnswered:
    """The fact that it is not, and why."""
    if isinstance(owed.exchange, MessagesPushed):
        return MessageAnswered(**_of_message(held, owed, epoch), code=code, detail=detail)
    return UpdateFailed(**identity(held, owed, epoch), code=code, detail=detail)


def _of_message(held: Lease, owed: Work, epoch: int) -> dict[str, Any]:
    found = identity(held, owed, epoch)
    return {name: value for name, value in found.items() if name not in ("attempt", "exchange")}


def identity(held: Lease, owed: Work, epoch: int) -> dict[str, str | int]:
    """What a fact about the answer says of the work."""
    return {
        "federation_id": held.federation_id,
        "round_number": owed.exchange.round_number,
        "attempt": owed.exchange.attempt,
        "exchange": owed.exchange.exchange,
        "client_id": held.client_id,
        "work_id": owed.work_id,
        "lease_epoch": epoch,
    }


def measures(report: WorkReport) -> dict[str, Any]:
    """What was measured, as the fact has it; nothing where nothing was."""
    return {} if report.measures is None else report.measures.model_dump()
