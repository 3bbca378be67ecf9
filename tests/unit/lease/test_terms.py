"""Addresses are presigned once for all of a cohort that ask within the same minute."""

from typing import cast

from flowerbed.artifact.blobs import Blobs
from flowerbed.lease import terms


class Signing:
    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def presign_get(self, uri: str, seconds: int) -> str:
        self.asked.append((uri, seconds))
        return f"{uri}?{len(self.asked)}"


def test_a_base_is_signed_once_a_minute() -> None:
    signing = Signing()
    blobs = cast(Blobs, signing)
    first = terms._base_url(blobs, "s3://models/a", 600, 7)
    assert terms._base_url(blobs, "s3://models/a", 600, 7) == first
    later = [
        terms._base_url(blobs, "s3://models/a", 600, 8),
        terms._base_url(blobs, "s3://models/a", 660, 7),
        terms._base_url(blobs, "s3://models/b", 600, 7),
    ]
    assert len({first, *later}) == 4
    assert signing.asked[0] == ("s3://models/a", 600)
