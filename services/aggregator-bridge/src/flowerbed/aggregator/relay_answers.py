"""What a relay reports of a reply: an update in the store and its metrics, or a failure."""

import logging
import math
import uuid
from pathlib import Path

from flwr.app import Message

from flowerbed.artifact.blobs import Blobs, DigestDiffers, split_uri
from flowerbed.contracts.door import Measures, WorkFailure, WorkReport
from flowerbed.contracts.relay import RelayAnswer, RelayOrder
from flowerbed.contracts.values import ArtifactRef
from flowerbed.flower_apps.messages import BadReply, metrics_of, write_arrays
from flowerbed.flower_apps.seeded import take_seconds

logger = logging.getLogger(__name__)

EXAMPLES, TOKENS = "num-examples", "num-tokens"
LONGEST_DETAIL = 8192


def answer_of(order: RelayOrder, reply: Message, blobs: Blobs, folder: Path) -> RelayAnswer:
    """Blocks; the update lies in the store when this returns.

    Raises:
        StoreAway: it cannot be stored now.
    """
    answer: WorkReport | WorkFailure
    try:
        answer = _report(order, reply, blobs, folder)
    except BadReply as error:
        code = "app-failed" if reply.has_error() else "bad-reply"
        answer = WorkFailure(epoch=order.lease_epoch, code=code, detail=str(error)[:LONGEST_DETAIL])
    return RelayAnswer(
        client_id=order.client_id,
        lease_id=order.lease_id,
        work_id=order.work_id,
        answer=answer,
    )


def _report(order: RelayOrder, reply: Message, blobs: Blobs, folder: Path) -> WorkReport:
    if reply.has_error():
        raise BadReply(reply.error.reason or f"the app answered with error {reply.error.code}")
    seconds = take_seconds(reply)
    found, left_out = metrics_of(reply)
    examples = found.pop(EXAMPLES, None)
    if examples is None or not math.isfinite(examples) or examples != int(examples):
        raise BadReply(f"the reply's metrics have {EXAMPLES} {examples!r}")
    metrics = {name: float(value) for name, value in found.items() if math.isfinite(value)}
    if dropped := (*left_out, *(found.keys() - metrics.keys())):
        logger.warning("%s: not reported, no finite number: %s", order.work_id, ", ".join(dropped))
    tokens = metrics.get(TOKENS)
    is_count = tokens is not None and 0 <= tokens < 2**63 and tokens == int(tokens)
    return WorkReport(
        epoch=order.lease_epoch,
        artifact=None if order.upload is None else _store(order.upload, reply, blobs, folder),
        n_examples=int(examples),
        metrics=metrics,
        train_seconds=seconds,
        measures=Measures(n_tokens=int(tokens)) if tokens is not None and is_count else None,
    )


def _store(uri: str, reply: Message, blobs: Blobs, folder: Path) -> ArtifactRef:
    path = folder / f"update-{uuid.uuid4().hex}.safetensors"
    bucket, key = split_uri(uri)
    try:
        sha256, _ = write_arrays(reply, path)
        return blobs.put_if_absent(bucket, key, path, sha256)
    except DigestDiffers:
        logger.warning("%s holds the answer of an earlier run: that one is reported", uri)
        return blobs.digest(uri)
    finally:
        path.unlink(missing_ok=True)
