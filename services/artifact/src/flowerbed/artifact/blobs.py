"""Objects in S3, by URI and digest: the only S3 code of the control plane.

Every method blocks; from a coroutine, call it through `asyncio.to_thread`. Requests are tried
again with backoff before an error comes out, and what comes out is one of ours:

StoreAway        S3 is away or refuses our key; the same call may work later
NotFound         there is no such object or bucket
DigestDiffers    the bytes are not those that were named
TooLarge         there are more bytes than wanted
"""

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from flowerbed.contracts.signed import Upload
from flowerbed.contracts.values import ArtifactRef
from flowerbed.events.errors import NotFound, Rejected, Unavailable

CHUNK = 1 << 20
_MISSING = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}
_ALREADY_THERE = {"412", "PreconditionFailed"}
_CONFIG = Config(
    signature_version="s3v4",
    s3={"addressing_style": "path"},
    # Every write names its own sha256 and every read is hashed here: no second checksum.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    retries={"mode": "standard", "total_max_attempts": 4},
    connect_timeout=3,
    read_timeout=30,
    max_pool_connections=32,
)


class StoreAway(Unavailable):
    """S3 did not answer, or not with what was asked for."""


class DigestDiffers(Rejected):
    code: ClassVar[str] = "hash-mismatch"


class TooLarge(Rejected):
    code: ClassVar[str] = "too-large"


class BadUri(Rejected):
    code: ClassVar[str] = "bad-uri"


class Blobs:
    """One S3 account. Safe to share between threads."""

    def __init__(
        self, endpoint: str, access_key: str, secret_key: str, *, region: str = "us-east-1"
    ) -> None:
        self._s3: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            region_name=region,
            config=_CONFIG,
        )

    def ping(self, bucket: str) -> None:
        """Ask for a bucket, to see that S3 answers and knows our key."""
        with _translated(bucket):
            self._s3.head_bucket(Bucket=bucket)

    def head(self, uri: str) -> int:
        """An object's size in bytes."""
        bucket, key = split_uri(uri)
        with _translated(uri):
            size: int = self._s3.head_object(Bucket=bucket, Key=key)["ContentLength"]
        return size

    def exists(self, uri: str) -> bool:
        try:
            self.head(uri)
        except NotFound:
            return False
        return True

    def digest(self, uri: str) -> ArtifactRef:
        """Read the whole object and say what it is."""
        sha256, size = hashlib.sha256(), 0
        for chunk in self._chunks(uri):
            sha256.update(chunk)
            size += len(chunk)
        return ArtifactRef(uri=uri, sha256=sha256.hexdigest(), size=size)

    def download(
        self, uri: str, path: Path, *, sha256: str | None = None, max_bytes: int | None = None
    ) -> ArtifactRef:
        """Write the object to `path`, hashing on the way; nothing stays there on an error.

        Raises:
            DigestDiffers: the object's digest is not `sha256`.
            TooLarge: the object holds more than `max_bytes`.
        """
        try:
            return self._download(uri, path, sha256, max_bytes)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def put_if_absent(self, bucket: str, key: str, path: Path, sha256: str) -> ArtifactRef:
        """Store the file at `path` once. Where the key is taken, its bytes must be the same.

        Raises:
            DigestDiffers: the file, or what is already there, is not `sha256`.
        """
        uri = f"s3://{bucket}/{key}"
        found = hash_file(path)
        if found != sha256:
            raise DigestDiffers(f"{path.name} has sha256 {found}, not {sha256}")
        with _translated(uri), path.open("rb") as content:
            try:
                self._s3.put_object(
                    Bucket=bucket,
                    Key=key,
                    Body=content,
                    IfNoneMatch="*",
                    ChecksumSHA256=b64encode(bytes.fromhex(sha256)).decode(),
                )
            except ClientError as error:
                if _code(error) not in _ALREADY_THERE:
                    raise
            else:
                return ArtifactRef(uri=uri, sha256=sha256, size=path.stat().st_size)
        return self._same(uri, sha256)

    def presign_get(self, uri: str, expires_seconds: int) -> str:
        bucket, key = split_uri(uri)
        url: str = self._s3.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=expires_seconds
        )
        return url

    def presign_put(self, uri: str, expires_seconds: int, *, if_none_match: bool = True) -> Upload:
        """A URL to write the object with; by default it works once, whoever holds it."""
        bucket, key = split_uri(uri)
        params = {"Bucket": bucket, "Key": key}
        if if_none_match:
            params["IfNoneMatch"] = "*"
        url = self._s3.generate_presigned_url(
            "put_object", Params=params, ExpiresIn=expires_seconds
        )
        headers = {"If-None-Match": "*"} if if_none_match else {}
        return Upload(url=url, headers=headers, uri=uri)

    def _download(
        self, uri: str, path: Path, sha256: str | None, max_bytes: int | None
    ) -> ArtifactRef:
        digest, size = hashlib.sha256(), 0
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for chunk in self._chunks(uri):
                size += len(chunk)
                if max_bytes is not None and size > max_bytes:
                    raise TooLarge(f"{uri} holds more than {max_bytes} bytes")
                digest.update(chunk)
                file.write(chunk)
        found = digest.hexdigest()
        if sha256 is not None and found != sha256:
            raise DigestDiffers(f"{uri} has sha256 {found}, not {sha256}")
        return ArtifactRef(uri=uri, sha256=found, size=size)

    def _chunks(self, uri: str) -> Iterator[bytes]:
        bucket, key = split_uri(uri)
        with _translated(uri):
            body = self._s3.get_object(Bucket=bucket, Key=key)["Body"]
            try:
                yield from body.iter_chunks(CHUNK)
            finally:
                body.close()

    def _same(self, uri: str, sha256: str) -> ArtifactRef:
        there = self.digest(uri)
        if there.sha256 != sha256:
            raise DigestDiffers(f"{uri} already holds sha256 {there.sha256}, not {sha256}")
        return there


def split_uri(uri: str) -> tuple[str, str]:
    """`s3://bucket/key` as (bucket, key)."""
    parts = urlsplit(uri)
    key = parts.path.removeprefix("/")
    if parts.scheme != "s3" or not parts.netloc or not key or parts.query or parts.fragment:
        raise BadUri(f"{uri!r} is not s3://bucket/key")
    return parts.netloc, key


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if _code(error) in _MISSING:
            raise NotFound(f"{what} is not in S3") from error
        raise StoreAway(f"S3 answered {_code(error)} for {what}") from error
    except (BotoCoreError, HTTPClientError) as error:
        raise StoreAway(f"S3 did not answer for {what}: {type(error).__name__}") from error


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
