"""The base of every event, and how its name becomes a subject."""

import re
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

NO_FEDERATION = "_"
"""Stands where a federation's id would, in the subject of a fact that belongs to none."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Payload(BaseModel):
    """Any value inside an event. Frozen; unknown fields are ignored so producers may add some."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Event(Payload):
    """A fact. Its type is the first three tokens of its subject: `fl.<entity>.<fact>`."""

    type: ClassVar[str]
    schema_version: ClassVar[int] = 1


def is_token(text: str) -> bool:
    """True if `text` can be one token of a subject: 1 to 64 of letters, digits, `_` and `-`."""
    return _TOKEN.fullmatch(text) is not None


def subject(event_type: str, tenant: str, federation_id: str = NO_FEDERATION) -> str:
    """`fl.<entity>.<fact>.<tenant>.<federation_id>`.

    Raises:
        ValueError: tenant or federation_id is not a single subject token.
    """
    for token in (tenant, federation_id):
        if not is_token(token):
            raise ValueError(f"{token!r} is not a subject token (letters, digits, '_' and '-')")
    return f"{event_type}.{tenant}.{federation_id}"
