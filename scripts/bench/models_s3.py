"""How fast an S3 server alone takes and gives objects: plain httpx clients, a process each."""

import multiprocessing
import time
from pathlib import Path
from typing import Any

import boto3
import httpx
import numpy as np

from flowerbed.embedded.stack import S3Access

MIB = 1 << 20
LONGEST = 3600.0


def rates(access: S3Access, size: int, clients: int, file: Path) -> dict[str, float]:
    """Bytes a second of all clients together, by method; each moves one object of this size."""
    block = np.random.default_rng(1).bytes(MIB)
    with file.open("wb") as content:
        for _ in range(size // MIB):
            content.write(block)
    s3 = boto3.client(
        "s3", endpoint_url=access.endpoint, aws_access_key_id=access.access_key,
        aws_secret_access_key=access.secret_key, region_name="us-east-1",
    )  # fmt: skip
    found = {}
    for method in ("PUT", "GET"):
        urls = [
            s3.generate_presigned_url(
                f"{method.lower()}_object", Params={"Bucket": access.bucket, "Key": f"alone-{n}"}
            )
            for n in range(clients)
        ]
        found[method] = size * clients / _seconds(method, urls, str(file))
    return found


def _seconds(method: str, urls: list[str], file: str) -> float:
    """From the first client's start to the last one's end; they start together."""
    spawn = multiprocessing.get_context("spawn")
    barrier, spans = spawn.Barrier(len(urls)), spawn.Queue()
    movers = [
        spawn.Process(target=_move, args=(method, url, file, barrier, spans), daemon=True)
        for url in urls
    ]
    for mover in movers:
        mover.start()
    found = [spans.get(timeout=LONGEST) for _ in movers]
    for mover in movers:
        mover.join()
    return float(max(end for _, end in found) - min(began for began, _ in found))


def _move(method: str, url: str, file: str, barrier: Any, spans: Any) -> None:
    with httpx.Client(timeout=LONGEST) as http:
        barrier.wait()
        began = time.time()
        if method == "PUT":
            with Path(file).open("rb") as content:
                http.put(url, content=content).raise_for_status()
        else:
            with http.stream("GET", url) as answer:
                answer.raise_for_status()
                for _ in answer.iter_raw(MIB):
                    pass
        spans.put((began, time.time()))
