"""Small values that several events and documents share."""

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints

from flowerbed.contracts.event import Payload

Sha256: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A digest as 64 lower-case hex digits."""

Token: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""A name that can be one token of a subject."""

NodeKey: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^ecdsa-sha2-nistp384 [A-Za-z0-9+/]{100,300}={0,2}$")
]
"""The public key of a Flower SuperNode, as OpenSSH writes it, without a comment."""


def _storable(text: str) -> str:
    return text.replace("\0", "\ufffd")


Words: TypeAlias = Annotated[str, StringConstraints(max_length=8192), AfterValidator(_storable)]
"""What a person or a program says of itself. Not refused for a byte that Postgres cannot keep."""

Scalar: TypeAlias = bool | int | float | str
"""What a Flower ConfigRecord can hold for one key."""

Exchange: TypeAlias = Literal["initialize", "train", "evaluate"]
"""One trip of messages from the server to the cohort and back; `initialize` asks nobody."""

ArtifactKind: TypeAlias = Literal["base", "checkpoint", "state"]

Timestamp: TypeAlias = AwareDatetime


class ArtifactRef(Payload):
    """Immutable bytes: where they lie (`s3://bucket/key`), their digest, their size in bytes."""

    uri: str
    sha256: Sha256
    size: int = Field(ge=0)


class DatasetRef(Payload):
    """A site's dataset as the control plane may know it: no path, no name, no row.

    `label` is `<task>-<uuid>`; `sha256` digests the names and digests of the site's files.
    """

    label: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,100}$")]
    sha256: Sha256


class Problem(Payload):
    """One broken rule of a document: where, what was found, what is allowed."""

    path: str
    value: str
    allowed: str
