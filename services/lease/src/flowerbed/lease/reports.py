"""What a client reports, against what it was ordered."""

from typing import Any

from flowerbed.contracts.door import WorkReport
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
    """An update lies where the order said; an evaluation has none."""
    if owed.exchange.exchange != "train":
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
