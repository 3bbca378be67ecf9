"""A message's whole content as a file: Flower's own protobuf, the same records the same bytes."""

import hashlib
import os
from pathlib import Path

from flwr.app import Message, Metadata, RecordDict
from flwr.app.message.message import make_message
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict

from flowerbed.flower_apps.messages import TTL_SECONDS

SERVER_NODE = 1
"""Flower's id of whoever is no node."""


def encoded(content: RecordDict) -> bytes:
    """The bytes that name a content.

    Raises:
        ValueError: the content has 2 GiB or more, which protobuf cannot write.
    """
    raw: bytes = recorddict_to_proto(content).SerializeToString(deterministic=True)
    return raw


def decoded(raw: bytes) -> RecordDict:
    """Raises: google.protobuf.message.DecodeError, ValueError: the bytes are no RecordDict."""
    return recorddict_from_proto(ProtoRecordDict.FromString(raw))


def read_content(path: Path) -> RecordDict:
    return decoded(path.read_bytes())


def write_content(content: RecordDict, path: Path) -> tuple[str, int]:
    """Its sha256 and size, on disk when this returns."""
    raw = encoded(content)
    with path.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(raw).hexdigest(), len(raw)


def whole_message(
    content: RecordDict,
    message_type: str,
    node_id: int,
    message_id: str,
    group_id: str,
    run_id: int,
) -> Message:
    """A message of a ServerApp of the app's own, as its ClientApp gets it."""
    metadata = Metadata(
        run_id=run_id,
        message_id=message_id,
        src_node_id=SERVER_NODE,
        dst_node_id=node_id,
        reply_to_message_id="",
        group_id=group_id,
        created_at=0.0,
        ttl=TTL_SECONDS,
        message_type=message_type,
    )
    return make_message(metadata, content)
