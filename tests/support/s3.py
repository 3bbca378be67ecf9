"""A real S3 server (SeaweedFS) for tests: started once a session, in a directory of its own."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from flowerbed.artifact.blobs import Blobs

WEED = Path(sys.executable).parent / "weed"
PARTS = ("s3", "master", "volume", "filer", "admin")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    endpoint: str
    access_key: str
    secret_key: str
    bucket: str = "flowerbed"


@contextmanager
def s3_server(directory: Path) -> Iterator[S3Server]:
    """SeaweedFS on free ports, with one key pair and one bucket."""
    ports = _free_ports(2 * len(PARTS))
    server = S3Server(
        endpoint=f"http://127.0.0.1:{ports[0]}", access_key="tests", secret_key="only-for-tests"
    )
    process = _start(directory, ports, server)
    try:
        _make_bucket(server, process, deadline=time.monotonic() + 30)
        yield server
    finally:
        # SIGTERM does not end it (it waits for its own parts), and a test's data may go.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _start(directory: Path, ports: list[int], server: S3Server) -> "subprocess.Popen[bytes]":
    (directory / "data").mkdir(parents=True)
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": server.access_key, "secretKey": server.secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = directory / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    listen = [
        f"-{part}.port{suffix}={port}"
        for (part, suffix), port in zip(
            ((part, suffix) for part in PARTS for suffix in ("", ".grpc")), ports, strict=True
        )
    ]
    return subprocess.Popen(
        [
            str(WEED), "mini", f"-dir={directory / 'data'}", "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1", "-webdav=false", "-admin.ui=false", "-master.telemetry=false",
            "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={config}", *listen,
        ],
        stdout=(directory / "weed.log").open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip


def _make_bucket(server: S3Server, process: "subprocess.Popen[bytes]", deadline: float) -> None:
    config = Config(retries={"max_attempts": 1}, connect_timeout=1, read_timeout=5)
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
        config=config,
    )
    while True:
        try:
            client.create_bucket(Bucket=server.bucket)
            return
        except Exception as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("SeaweedFS did not start") from error
            time.sleep(0.05)


def _free_ports(count: int) -> list[int]:
    """Below the kernel's range for outgoing connections, so that none is taken meanwhile."""
    found: list[int] = []
    while len(found) < count:
        port = random.randint(15000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def blobs(s3: S3Server) -> Blobs:
    return Blobs(s3.endpoint, s3.access_key, s3.secret_key)
