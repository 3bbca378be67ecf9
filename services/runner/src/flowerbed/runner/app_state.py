"""What a Flower app remembers between messages (`Context.state`), as a file of its own."""

import hashlib
from pathlib import Path

from flwr.app import RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict

from flowerbed.runner.state import write_private

LARGEST = 256 << 20


class TooLarge(Exception):
    """The app remembers more than a site keeps for it."""


def save(state: RecordDict, path: Path) -> str | None:
    """Write it, on disk when this returns; answers its sha256, None where there is nothing.

    Raises:
        TooLarge: it is larger than `LARGEST`.
    """
    if not state:
        return None
    content = recorddict_to_proto(state).SerializeToString(deterministic=True)
    if len(content) > LARGEST:
        raise TooLarge(f"the app's state has {len(content)} bytes, {LARGEST} are kept at most")
    write_private(path, content)
    return hashlib.sha256(content).hexdigest()


def load(path: Path) -> RecordDict:
    return recorddict_from_proto(ProtoRecordDict.FromString(path.read_bytes()))
