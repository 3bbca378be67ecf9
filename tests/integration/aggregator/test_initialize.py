"""The base checkpoint: made by the app's own code, or taken from S3, and always verified."""

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from flowerbed.flower_apps.registry import code_hash
from tests.integration.aggregator.conftest import Garden


def stream(garden: Garden) -> str:
    return garden.stream(0, 1, "initialize")


async def test_the_apps_own_code_makes_the_base_in_a_process_of_its_own(
    garden: Garden, tmp_path: Path
) -> None:
    model = {"uri": "builtin:hospital"}
    await garden.create(model_ref=model, code_hash=code_hash("hospital"))
    ended = await garden.outcome(stream(garden))
    assert ended["type"] == "aggregate.completed"
    base = ended["checkpoint"]
    assert base["uri"] == f"s3://flowerbed/checkpoints/{base['sha256']}.safetensors"
    garden.blobs.download(base["uri"], tmp_path / "base", sha256=base["sha256"])
    assert load_file(tmp_path / "base")
    answer = await garden.http.post(
        "/verify", json={"federation_id": garden.federation_id, "round_number": 0}
    )
    assert answer.json()["identical"] is True
    assert answer.json()["actual"] == base["sha256"]


def test_the_bridge_never_loads_torch_or_flwr() -> None:
    code = (
        "import sys, flowerbed.aggregator.__main__, flowerbed.artifact.__main__;"
        " sys.exit(any(name in sys.modules for name in ('torch', 'flwr')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_other_code_than_the_federation_was_created_with_is_not_run(garden: Garden) -> None:
    await garden.create(model_ref={"uri": "builtin:hospital"}, code_hash="d" * 64)
    ended = await garden.outcome(stream(garden))
    assert (ended["type"], ended["code"]) == ("aggregate.failed", "code-hash")
    assert f"{'d' * 64} is asked" in ended["reason"]


async def test_a_base_in_s3_is_taken_over_by_its_digest(garden: Garden) -> None:
    await garden.create()
    ended = await garden.outcome(stream(garden))
    assert garden.base is not None
    digest = garden.base.sha256
    assert ended["checkpoint"] == {
        "uri": f"s3://flowerbed/checkpoints/{digest}.safetensors",
        "sha256": digest,
        "size": garden.base.size,
    }
    assert (ended["updates"], ended["parents"], ended["state"]) == ([], [], None)


@pytest.mark.parametrize(
    ("content", "sha256", "code"),
    [
        (b"not a model", None, "not-safetensors"),
        (b"not a model", "e" * 64, "hash-mismatch"),
        (None, None, "object-missing"),
    ],
)
async def test_a_base_that_is_no_use_fails_the_exchange(
    garden: Garden, content: bytes | None, sha256: str | None, code: str
) -> None:
    uri = "s3://flowerbed/nothing" if content is None else garden.put(content).uri
    await garden.create(model_ref={"uri": uri, "sha256": sha256})
    ended = await garden.outcome(stream(garden))
    assert (ended["type"], ended["code"]) == ("aggregate.failed", code)
