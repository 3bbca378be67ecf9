"""The bytes of artifacts, between S3 and a backup directory, by their digests."""

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from flowerbed.embedded.backup.artifacts import Artifact
from flowerbed.embedded.backup.manifest import OBJECTS, Fact, Report, check, fact, flush
from flowerbed.embedded.errors import EmbeddedError
from flowerbed.embedded.stack import S3Access

T = TypeVar("T")
_AT_ONCE = 8
_MISSING = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}
_CONFIG = Config(
    signature_version="s3v4",
    s3={"addressing_style": "path"},
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    retries={"mode": "standard", "total_max_attempts": 4},
    max_pool_connections=_AT_ONCE,
)


class Objects:
    """Of one backup directory and one S3 account."""

    def __init__(self, folder: Path, access: S3Access) -> None:
        self._folder = folder / OBJECTS
        self._s3: Any = boto3.client(
            "s3",
            endpoint_url=access.endpoint,
            aws_access_key_id=access.access_key,
            aws_secret_access_key=access.secret_key,
            region_name="us-east-1",
            config=_CONFIG,
        )

    def fetch(self, artifacts: Sequence[Artifact], report: Report) -> tuple[Artifact, ...]:
        """Copy what is not there yet; what S3 does not have with the right bytes is answered."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        outcomes = _each(artifacts, self._fetch, "objects", report)
        return tuple(one for one, is_there in outcomes if not is_there)

    def describe(self, uris: Iterable[str], scratch: Path) -> tuple[Artifact, ...]:
        """What lies at these URIs, where something does; read through a file in `scratch`."""
        found = []
        for uri in uris:
            path = scratch / "described"
            if self._download(uri, path):
                is_now = fact(path)
                found.append(Artifact(uri=uri, sha256=is_now.sha256, size=is_now.size))
            path.unlink(missing_ok=True)
        return tuple(found)

    def put_back(self, artifacts: Sequence[Artifact], report: Report) -> None:
        """Every object at its URI again, unless it is there already."""
        for bucket in sorted({_place(one.uri)[0] for one in artifacts}):
            self._ensure_bucket(bucket)
        list(_each(artifacts, self._put_back, "objects", report))

    def prune(self, artifacts: Iterable[Artifact]) -> None:
        """Delete what no artifact is."""
        wanted = {one.sha256 for one in artifacts}
        for path in self._folder.glob("*/*"):
            if path.name not in wanted:
                path.unlink()

    def _fetch(self, artifact: Artifact) -> bool:
        path = place_of(self._folder, artifact.sha256)
        if path.exists() and path.stat().st_size == artifact.size:
            return True
        path.parent.mkdir(mode=0o700, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".fetching-")
        os.close(handle)
        fetching = Path(name)
        try:
            if not self._download(artifact.uri, fetching) or fact(fetching) != _fact(artifact):
                return False
            flush(fetching)
            fetching.rename(path)
            flush(path.parent)
        finally:
            fetching.unlink(missing_ok=True)
        return True

    def _download(self, uri: str, path: Path) -> bool:
        bucket, key = _place(uri)
        return _asked(lambda: self._s3.download_file(bucket, key, str(path)))

    def _put_back(self, artifact: Artifact) -> None:
        bucket, key = _place(artifact.uri)
        if not _asked(lambda: self._s3.head_object(Bucket=bucket, Key=key)):
            path = place_of(self._folder, artifact.sha256)
            _asked(lambda: self._s3.upload_file(str(path), bucket, key))

    def _ensure_bucket(self, bucket: str) -> None:
        if not _asked(lambda: self._s3.head_bucket(Bucket=bucket)):
            _asked(lambda: self._s3.create_bucket(Bucket=bucket))


def check_objects(folder: Path, artifacts: Sequence[Artifact], report: Report) -> None:
    """Raises: Damaged: one of them is gone or has other bytes."""
    by_digest = {one.sha256: one for one in artifacts}

    def look(one: Artifact) -> None:
        check(place_of(folder / OBJECTS, one.sha256), _fact(one))

    list(_each(list(by_digest.values()), look, "digests of objects", report))


def place_of(objects: Path, sha256: str) -> Path:
    return objects / sha256[:2] / sha256


def _fact(artifact: Artifact) -> Fact:
    return Fact(sha256=artifact.sha256, size=artifact.size)


def _place(uri: str) -> tuple[str, str]:
    parts = urlsplit(uri)
    return parts.netloc, parts.path.lstrip("/")


def _asked(request: Callable[[], object]) -> bool:
    """False if there is no such object or bucket."""
    try:
        request()
    except ClientError as error:
        if error.response["Error"]["Code"] in _MISSING:
            return False
        raise EmbeddedError(f"s3 refused: {error}") from error
    except (BotoCoreError, boto3.exceptions.Boto3Error, OSError) as error:
        raise EmbeddedError(f"s3 did not answer: {error}") from error
    return True


def _each(
    artifacts: Sequence[Artifact], work: Callable[[Artifact], T], what: str, report: Report
) -> list[tuple[Artifact, T]]:
    done = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        results = pool.map(partial(_with, work), artifacts)
        for number, outcome in enumerate(results, 1):
            done.append(outcome)
            report(what, number, len(artifacts))
    return done


def _with(work: Callable[[Artifact], T], artifact: Artifact) -> tuple[Artifact, T]:
    return artifact, work(artifact)
