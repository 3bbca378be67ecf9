"""What S3 really does with our requests, on a real SeaweedFS."""

import hashlib
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flowerbed.artifact.blobs import BadUri, Blobs, DigestDiffers, TooLarge, hash_file
from flowerbed.contracts.signed import Upload
from flowerbed.events.errors import NotFound, Unavailable
from tests.support.s3 import S3Server


def put(upload: Upload, body: bytes, headers: dict[str, str] | None = None) -> int:
    request = urllib.request.Request(
        upload.url, data=body, method="PUT", headers=upload.headers if headers is None else headers
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def uri(s3: S3Server, key: str) -> str:
    return f"s3://{s3.bucket}/{key}"


def test_what_was_put_comes_back_with_its_digest(
    blobs: Blobs, s3: S3Server, file: Path, tmp_path: Path
) -> None:
    stored = blobs.put_if_absent(s3.bucket, "a/stored", file, hash_file(file))
    assert stored.uri == uri(s3, "a/stored")
    copy = tmp_path / "new" / "copy"
    assert blobs.download(stored.uri, copy, sha256=stored.sha256) == stored
    assert copy.read_bytes() == file.read_bytes()
    assert blobs.digest(stored.uri) == stored
    assert blobs.head(stored.uri) == stored.size == 7000


def test_putting_the_same_bytes_twice_is_one_object(blobs: Blobs, s3: S3Server, file: Path) -> None:
    first = blobs.put_if_absent(s3.bucket, "a/twice", file, hash_file(file))
    assert blobs.put_if_absent(s3.bucket, "a/twice", file, hash_file(file)) == first


def test_a_key_never_gets_other_bytes(
    blobs: Blobs, s3: S3Server, file: Path, tmp_path: Path
) -> None:
    first = blobs.put_if_absent(s3.bucket, "a/taken", file, hash_file(file))
    other = tmp_path / "other"
    other.write_bytes(b"other")
    with pytest.raises(DigestDiffers, match="already holds"):
        blobs.put_if_absent(s3.bucket, "a/taken", other, hash_file(other))
    assert blobs.digest(first.uri) == first


def test_a_file_that_is_not_what_it_is_said_to_be_is_not_put(
    blobs: Blobs, s3: S3Server, file: Path
) -> None:
    with pytest.raises(DigestDiffers):
        blobs.put_if_absent(s3.bucket, "a/liar", file, "0" * 64)
    assert not blobs.exists(uri(s3, "a/liar"))


def test_a_download_with_another_digest_leaves_no_file(
    blobs: Blobs, s3: S3Server, file: Path, tmp_path: Path
) -> None:
    stored = blobs.put_if_absent(s3.bucket, "a/digest", file, hash_file(file))
    target = tmp_path / "target"
    with pytest.raises(DigestDiffers, match=f"has sha256 {stored.sha256}, not 0000"):
        blobs.download(stored.uri, target, sha256="0" * 64)
    assert not target.exists()


def test_a_download_stops_at_its_limit(
    blobs: Blobs, s3: S3Server, file: Path, tmp_path: Path
) -> None:
    stored = blobs.put_if_absent(s3.bucket, "a/large", file, hash_file(file))
    target = tmp_path / "target"
    with pytest.raises(TooLarge, match="more than 6999 bytes"):
        blobs.download(stored.uri, target, max_bytes=6999)
    assert not target.exists()


def test_what_is_not_there_is_not_found(blobs: Blobs, s3: S3Server, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        blobs.download(uri(s3, "nothing"), tmp_path / "x")
    with pytest.raises(NotFound):
        blobs.digest("s3://no-such-bucket/nothing")
    assert not blobs.exists(uri(s3, "nothing"))


def test_a_presigned_put_works_once(blobs: Blobs, s3: S3Server) -> None:
    upload = blobs.presign_put(uri(s3, "updates/once"), 60)
    assert put(upload, b"first") == 200
    assert put(upload, b"first") == 412
    assert put(upload, b"second") == 412
    assert blobs.digest(upload.uri).sha256 == hashlib.sha256(b"first").hexdigest()


def test_of_racing_presigned_puts_one_wins(blobs: Blobs, s3: S3Server) -> None:
    upload = blobs.presign_put(uri(s3, "updates/race"), 60)
    bodies = [bytes([65 + place]) * 200_000 for place in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: put(upload, body), bodies))
    assert answers.count(200) == 1
    winner = bodies[answers.index(200)]
    assert blobs.digest(upload.uri).sha256 == hashlib.sha256(winner).hexdigest()


def test_the_condition_of_a_presigned_put_cannot_be_left_out(blobs: Blobs, s3: S3Server) -> None:
    upload = blobs.presign_put(uri(s3, "updates/unconditional"), 60)
    assert put(upload, b"first", headers={}) == 403
    assert not blobs.exists(upload.uri)


def test_a_presigned_put_is_for_its_own_key_alone(blobs: Blobs, s3: S3Server) -> None:
    upload = blobs.presign_put(uri(s3, "updates/mine"), 60)
    stolen = upload.model_copy(update={"url": upload.url.replace("mine", "yours")})
    assert put(stolen, b"first") == 403


def test_a_presigned_get_reads(blobs: Blobs, s3: S3Server, file: Path) -> None:
    stored = blobs.put_if_absent(s3.bucket, "a/presigned", file, hash_file(file))
    with urllib.request.urlopen(blobs.presign_get(stored.uri, 60), timeout=10) as answer:
        assert answer.read() == file.read_bytes()


def test_a_wrong_key_or_an_absent_server_is_unavailable(s3: S3Server) -> None:
    with pytest.raises(Unavailable, match="S3 answered"):
        Blobs(s3.endpoint, s3.access_key, "wrong").head(uri(s3, "a/x"))
    with pytest.raises(Unavailable, match="did not answer"):
        Blobs("http://127.0.0.1:9", "a", "b").ping(s3.bucket)


def test_only_s3_uris_are_read(blobs: Blobs) -> None:
    for bad in ("http://bucket/key", "s3://bucket", "s3:///key", "/etc/passwd", "s3://b/k?x=1"):
        with pytest.raises(BadUri):
            blobs.head(bad)
