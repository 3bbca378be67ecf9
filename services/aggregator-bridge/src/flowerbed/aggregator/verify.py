"""Make a round's checkpoint again, from the log and S3 alone, and compare."""

import asyncio
import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from flowerbed.aggregator.aggregation import Aggregation, Made
from flowerbed.aggregator.bridge import Bridge
from flowerbed.aggregator.decider import exchange
from flowerbed.aggregator.initializing import make_base
from flowerbed.aggregator.kept import moments_before
from flowerbed.aggregator.projections.exchanges import Asked, read_exchange
from flowerbed.aggregator.projections.outcomes import stream_that_made
from flowerbed.aggregator.quorum import in_fold_order
from flowerbed.aggregator.spool import Spool
from flowerbed.contracts.aggregate import AggregateCompleted
from flowerbed.contracts.update import UpdateAccepted
from flowerbed.contracts.values import ArtifactRef, Sha256
from flowerbed.events.errors import NotFound, Rejected


class NotFolded(Rejected):
    code: ClassVar[str] = "server-app-whole"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """`expected` is what the log says, `actual` what came out now: the checkpoint's digest; that of
    the strategy's moments where only they differ."""

    federation_id: str
    round_number: int
    expected: Sha256
    actual: Sha256
    identical: bool
    n_updates: int
    seconds: float


async def verify(
    bridge: Bridge, federation_id: str, round_number: int, tenant: str | None = None
) -> Verification:
    """Fold a round's accepted updates again; initialize the app again for round 0.

    Raises:
        NotFound: no such round has a checkpoint, or an object is gone from S3.
        DigestDiffers: an object in S3 is not what was accepted.
    """
    began = time.perf_counter()
    owner, stream = await stream_that_made(bridge.database, federation_id, round_number)
    if tenant not in (None, owner):
        raise NotFound(f"round {round_number} of {federation_id} has no checkpoint here")
    asked = await read_exchange(bridge.database, owner, stream)
    if asked.serving is not None:
        raise NotFolded("the app's own ServerApp made it: no round's updates give these bytes")
    async with bridge.database.transaction(owner) as tx:
        history = [recorded.event for recorded in await bridge.store.read(tx, stream)]
    expected = next(event for event in history if isinstance(event, AggregateCompleted))
    assert expected.checkpoint is not None
    folder = bridge.spool / f"verify-{uuid.uuid4().hex}"
    folder.mkdir(parents=True)
    try:
        if asked.started is None:
            (_, checkpoint), moments = await make_base(bridge, asked, folder), None
        else:
            answers = exchange.replay(history).answers
            before = await moments_before(bridge, asked)
            aggregation = await asyncio.to_thread(_prepared, bridge, asked, folder, before)
            updates = in_fold_order(answers, asked.terms)
            await aggregation.drive(updates)
            made = await asyncio.to_thread(_fold_again, aggregation, updates)
            checkpoint, moments = made.sha256, made.state.moments
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    # The moments stand for both where the checkpoint is right and they are not.
    kept = None if expected.moments is None else expected.moments.sha256
    pairs = [(expected.checkpoint.sha256, checkpoint), (kept, moments)]
    wanted, actual = next((pair for pair in pairs if pair[0] != pair[1]), pairs[0])
    return Verification(
        federation_id=federation_id,
        round_number=round_number,
        expected=wanted or "",
        actual=actual or "",
        identical=wanted == actual,
        n_updates=len(expected.updates),
        seconds=round(time.perf_counter() - began, 3),
    )


def _prepared(
    bridge: Bridge, asked: Asked, folder: Path, moments: ArtifactRef | None
) -> Aggregation:
    assert asked.started is not None
    spool = Spool.of(bridge.blobs, folder, asked.spec.spec.update)
    return Aggregation(bridge, asked, spool, spool.base(asked.started.base), moments)


def _fold_again(aggregation: Aggregation, updates: list[UpdateAccepted]) -> Made:
    aggregation.fold.extend(updates)
    return aggregation.make()
