"""One S3 server for this folder's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.s3 import S3Server, s3_server

from flowerbed.artifact.blobs import Blobs


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def blobs(s3: S3Server) -> Blobs:
    return Blobs(s3.endpoint, s3.access_key, s3.secret_key)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights" * 1000)
    return path
