"""What the addresses of the API are made of."""

from datetime import UTC, datetime
from typing import Annotated, TypeAlias

from fastapi import Path
from pydantic import AfterValidator, AwareDatetime

LARGEST = 2**63 - 1
"""What Postgres can count to."""

LARGEST_ROUND = 2**31 - 1

FederationId: TypeAlias = Annotated[str, Path(max_length=128)]
ClientId: TypeAlias = Annotated[str, Path(max_length=128)]
RoundNumber: TypeAlias = Annotated[int, Path(ge=0, le=LARGEST_ROUND)]
"""0 is the base."""


def in_utc(moment: datetime) -> datetime:
    """
    Raises:
        ValueError: there is no such moment in UTC.
    """
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the years are 1 to 9999") from error


Moment: TypeAlias = Annotated[AwareDatetime, AfterValidator(in_utc)]
