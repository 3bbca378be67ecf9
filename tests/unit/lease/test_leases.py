"""A lease is held by one epoch; silence and release end it; answers count once."""

import pytest

from flowerbed.contracts.client import (
    ClientDeclined,
    ClientDropped,
    ClientJoined,
    ClientLeaseIssued,
    ClientReleased,
)
from flowerbed.contracts.update import UpdateFailed, UpdateSubmitted
from flowerbed.contracts.values import ArtifactRef, DatasetRef
from flowerbed.events.testing import given
from flowerbed.lease.leases import (
    ClaimLease,
    DatasetChanged,
    DeclineLease,
    DropClient,
    FailUpdate,
    IssueLease,
    LeaseEvent,
    LeaseLost,
    MissWork,
    NodeChanged,
    ReleaseLease,
    SubmitUpdate,
    lease,
)

WHO = {"federation_id": "fed-1", "client_id": "client-a", "lease_id": "l1"}
DATA = DatasetRef(label="hospital-1", sha256="a" * 64)
OTHER = DatasetRef(label="hospital-2", sha256="b" * 64)


def issued(epoch: int = 1) -> ClientLeaseIssued:
    return ClientLeaseIssued(**WHO, epoch=epoch, ttl_seconds=60)


def joined(epoch: int = 1) -> ClientJoined:
    return ClientJoined(**WHO, epoch=epoch, dataset=DATA)


def submitted(epoch: int = 1, work: str = "w1") -> UpdateSubmitted:
    return UpdateSubmitted(
        federation_id="fed-1", round_number=1, attempt=1, exchange="train", client_id="client-a",
        work_id=work, lease_epoch=epoch, n_examples=3,
        artifact=ArtifactRef(uri="s3://b/k", sha256="c" * 64, size=1),
    )  # fmt: skip


def failed(epoch: int = 1, work: str = "w1") -> UpdateFailed:
    return UpdateFailed(
        federation_id="fed-1", round_number=1, attempt=1, exchange="train", client_id="client-a",
        work_id=work, lease_epoch=epoch, code="app-failed", detail="boom",
    )  # fmt: skip


ISSUE = IssueLease(**WHO, ttl_seconds=60)
HELD: list[LeaseEvent] = [issued(), joined()]


def test_a_free_lease_is_issued_with_the_next_epoch() -> None:
    given(lease).when(ISSUE).then(issued(1))
    dropped = ClientDropped(**WHO, epoch=1)
    given(lease, *HELD, dropped).when(ISSUE).then(issued(2))


@pytest.mark.parametrize("events", [[issued()], HELD])
def test_an_offered_or_held_lease_is_not_issued_again(events: list[LeaseEvent]) -> None:
    given(lease, *events).when(ISSUE).then_nothing()


def test_claiming_joins_once() -> None:
    claim = ClaimLease(epoch=1, dataset=DATA)
    given(lease, issued()).when(claim).then(joined())
    given(lease, *HELD).when(claim).then_nothing()


def test_claiming_again_with_another_dataset_is_refused() -> None:
    given(lease, *HELD).when(ClaimLease(epoch=1, dataset=OTHER)).then_rejected(
        DatasetChanged, match="claimed with dataset aaaaaaaaaaaa, not bbbbbbbbbbbb"
    )


def test_a_lease_keeps_its_supernode_for_as_long_as_it_is_held() -> None:
    key = f"ecdsa-sha2-nistp384 {'A' * 180}"
    claim = ClaimLease(epoch=1, dataset=DATA, node_key=key)
    with_node = joined().model_copy(update={"node_key": key})
    given(lease, issued()).when(claim).then(with_node)
    given(lease, issued(), with_node).when(claim).then_nothing()
    for other in (key.replace("A", "B"), None):
        again = ClaimLease(epoch=1, dataset=DATA, node_key=other)
        given(lease, issued(), with_node).when(again).then_rejected(
            NodeChanged, match="another SuperNode's key"
        )


def test_an_old_epoch_claims_and_reports_nothing() -> None:
    again = [*HELD, ClientDropped(**WHO, epoch=1), issued(2)]
    given(lease, *again).when(ClaimLease(epoch=1, dataset=DATA)).then_rejected(
        LeaseLost, match=r"epoch 1 does not hold the lease \(now 2\)"
    )
    given(lease, *again, joined(2)).when(SubmitUpdate(update=submitted(1))).then_rejected(LeaseLost)
    given(lease, *again).when(SubmitUpdate(update=submitted(2))).then_rejected(LeaseLost)
    given(lease).when(FailUpdate(failure=failed())).then_rejected(LeaseLost)


@pytest.mark.parametrize("events", [[issued()], HELD])
def test_a_site_declines_once_for_each_reason_and_the_lease_stays(events: list[LeaseEvent]) -> None:
    def decline(code: str, epoch: int = 1, detail: str = "") -> DeclineLease:
        return DeclineLease(epoch=epoch, code=code, detail=detail)

    gone = ClientDeclined(**WHO, epoch=1, code="dataset-gone", detail="it is not there")
    full = ClientDeclined(**WHO, epoch=1, code="disk-full")
    given(lease, *events).when(decline("dataset-gone", detail="it is not there")).then(gone)
    given(lease, *events, gone).when(decline("dataset-gone", detail="still")).then_nothing()
    given(lease, *events, gone).when(decline("disk-full")).then(full)
    given(lease, *events, gone, full).when(decline("dataset-gone", detail="it is not there")).then(
        gone
    )
    given(lease, *events).when(decline("disk-full", epoch=2)).then_rejected(LeaseLost)
    given(lease).when(decline("disk-full")).then_rejected(LeaseLost)


def test_a_declined_lease_can_still_be_claimed() -> None:
    declined = ClientDeclined(**WHO, epoch=1, code="dataset-gone")
    given(lease, issued(), declined).when(ClaimLease(epoch=1, dataset=DATA)).then(joined())
    given(lease, issued(), declined, joined()).when(
        DeclineLease(epoch=1, code="dataset-gone", detail="")
    ).then(declined)


def test_work_is_answered_once_whatever_the_second_answer_says() -> None:
    given(lease, *HELD).when(SubmitUpdate(update=submitted())).then(submitted())
    given(lease, *HELD, submitted()).when(SubmitUpdate(update=submitted())).then_nothing()
    given(lease, *HELD, submitted()).when(FailUpdate(failure=failed())).then_nothing()
    given(lease, *HELD, failed()).when(SubmitUpdate(update=submitted(work="w2"))).then(
        submitted(work="w2")
    )


def test_work_answered_under_an_older_epoch_stays_answered() -> None:
    again = [*HELD, submitted(), ClientDropped(**WHO, epoch=1), issued(2), joined(2)]
    given(lease, *again).when(SubmitUpdate(update=submitted(2))).then_nothing()


def test_work_is_missed_only_while_nobody_holds_the_lease() -> None:
    miss, dropped = MissWork(failure=failed()), ClientDropped(**WHO, epoch=1)
    given(lease, *HELD).when(miss).then_nothing()
    given(lease, *HELD, dropped).when(miss).then(failed())
    given(lease, *HELD, dropped, issued(2)).when(miss).then(failed())
    given(lease, *HELD, dropped, failed()).when(miss).then_nothing()
    given(lease, *HELD, submitted(), dropped).when(miss).then_nothing()


def test_silence_drops_only_the_epoch_that_was_silent() -> None:
    drop = DropClient(epoch=1, reason="silent")
    dropped = ClientDropped(**WHO, epoch=1, reason="silent")
    given(lease, *HELD).when(drop).then(dropped)
    given(lease, *HELD, dropped).when(drop).then_nothing()
    given(lease, *HELD, dropped, issued(2), joined(2)).when(drop).then_nothing()
    given(lease).when(DropClient(epoch=None, reason="revoked")).then_nothing()
    given(lease, *HELD).when(DropClient(epoch=None, reason="silent")).then(dropped)


def test_releasing_twice_changes_nothing() -> None:
    release = ReleaseLease(epoch=1, reason="done")
    released = ClientReleased(**WHO, epoch=1, reason="done")
    given(lease, *HELD).when(release).then(released)
    given(lease, *HELD, released).when(release).then_nothing()
    given(lease, issued()).when(ReleaseLease(epoch=None, reason="done")).then(released)
    given(lease, *HELD).when(ReleaseLease(epoch=2, reason="done")).then_nothing()
