"""Apps of people's own, taken in on real servers: stored by digest, recorded once."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from flowerbed.artifact.blobs import Blobs
from flowerbed.contracts.bundle import LARGEST_BUNDLE
from tests.integration.artifact.conftest import ArtifactService
from tests.support.apps import bundle, digest
from tests.support.s3 import S3Server


async def push(service: ArtifactService, raw: bytes, who: str = "alice") -> httpx.Response:
    return await service.http.post(
        "/internal/apps",
        content=raw,
        params={"tenant": "acme"},
        headers={"flowerbed-actor": who},
    )


async def test_a_bundle_is_stored_by_its_digest_and_recorded_once(
    service: ArtifactService, blobs: Blobs, s3: S3Server, tmp_path: Path
) -> None:
    raw = bundle()
    sha256 = digest(raw)
    first = await push(service, raw)
    assert first.status_code == 200
    assert first.json() == {
        "sha256": sha256, "size": len(raw), "uri": f"s3://{s3.bucket}/apps/acme/{sha256}.fab",
        "name": "drift", "version": "1.2.0", "publisher": "alice", "pushed_by": "alice",
    }  # fmt: skip
    blobs.download(first.json()["uri"], tmp_path / "fab", sha256=sha256)
    again = await push(service, raw, who="bob")
    assert again.json() == first.json(), "the same bytes are one app, as it was pushed first"
    ((event_type, data),) = await service.events()
    assert (event_type, data["pushed_by"]) == ("fl.app.pushed", "alice")


async def test_it_is_found_in_its_tenant_alone(service: ArtifactService) -> None:
    raw = bundle()
    path = f"/internal/apps/{digest(raw)}"
    assert (await service.http.get(path, params={"tenant": "acme"})).status_code == 404
    await push(service, raw)
    assert (await service.http.get(path, params={"tenant": "acme"})).json()["name"] == "drift"
    assert (await service.http.get(path, params={"tenant": "other"})).status_code == 404


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"no zip", "no zip file"),
        (bundle(files={"main.py": ""}), "has no pyproject.toml"),
        (bundle({"pyproject.toml": "[project]\nname = 'x'"}), "names no Flower app"),
        (bundle({"../evil.py": ""}), "no name of a file below"),
        (b"0" * (LARGEST_BUNDLE + 1), "at most"),
    ],
)
async def test_what_is_no_app_is_refused_and_nothing_is_stored(
    service: ArtifactService, blobs: Blobs, s3: S3Server, raw: bytes, words: str
) -> None:
    answer = await push(service, raw)
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "bundle-refused")
    assert words in problem["detail"]
    assert await service.events() == []
    assert not blobs.exists(f"s3://{s3.bucket}/apps/acme/{digest(raw)}.fab")


async def test_only_the_gateway_may_push(service: ArtifactService) -> None:
    nobody = {"authorization": "Bearer nobody"}
    answer = await service.http.post("/internal/apps?tenant=acme", content=b"", headers=nobody)
    assert answer.status_code == 401
