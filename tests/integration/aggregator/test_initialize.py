"""The base checkpoint: made by the app's own code, or taken from S3, and always verified."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from flowerbed.flower_apps.registry import code_hash
from tests.integration.aggregator.conftest import Garden
from tests.support.apps import bundle, digest

SPYING = """
import os
import numpy as np


class Net:
    def state_dict(self):
        names = sorted(name for name in os.environ if "FLOWERBED" in name or "TOKEN" in name)
        assert not names, names
        assert os.environ["HOME"] == os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        return {"weights": np.random.rand(4).astype(np.float32)}
"""


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


def push(garden: Garden, raw: bytes, tenant: str = "acme") -> dict[str, Any]:
    """Put the bundle where the artifact service does; the spec's app and its code hash."""
    sha256 = digest(raw)
    garden.put(raw, key=f"apps/{tenant}/{sha256}.fab")
    return {"app": f"fab:{sha256}", "code_hash": sha256}


async def test_an_app_of_ones_own_makes_the_base_and_learns_nothing_of_us(
    garden: Garden, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "FLOWERBED_TOKEN", "secret")
    own = push(garden, bundle({"drift/task.py": SPYING}))
    await garden.create(model_ref={"uri": "app:drift.task:Net"}, **own)
    ended = await garden.outcome(stream(garden))
    assert ended["type"] == "aggregate.completed", ended
    where = {"federation_id": garden.federation_id, "round_number": 0}
    answer = await garden.http.post("/verify", json=where)
    assert answer.json()["identical"] is True, "the spec's seed gives the same bytes again"


@pytest.mark.parametrize(
    ("uri", "tenant", "code", "words"),
    [
        ("app:drift.task:Nothing", "acme", "app-failed", "app drift ended with 1: AttributeError"),
        ("app:drift.task:Net", "other", "object-missing", "apps/acme/"),
        (None, "other", "object-missing", "apps/acme/"),
    ],
)
async def test_an_app_that_gives_no_base_or_is_anothers_fails_the_exchange(
    garden: Garden, uri: str | None, tenant: str, code: str, words: str
) -> None:
    own = push(garden, bundle({"whose.md": tenant}), tenant)
    model: dict[str, Any] = {} if uri is None else {"model_ref": {"uri": uri}}
    await garden.create(**model, **own)
    ended = await garden.outcome(stream(garden))
    assert (ended["type"], ended["code"]) == ("aggregate.failed", code)
    assert words in ended["reason"]


async def test_an_operator_may_have_no_app_run_here(
    garden: Garden, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert garden.exchanges is not None
    for part in garden.exchanges.parts:
        part.bridge = replace(part.bridge, runs_pushed_apps=False)
    await garden.create(model_ref={"uri": "app:drift.task:Net"}, **push(garden, bundle()))
    ended = await garden.outcome(stream(garden))
    assert (ended["type"], ended["code"]) == ("aggregate.failed", "app-not-run")


async def test_a_simulation_fails_where_the_operator_wants_none(garden: Garden) -> None:
    assert garden.exchanges is not None
    for part in garden.exchanges.parts:
        part.bridge = replace(part.bridge, runs_simulations=False)
    await garden.create(runtime="simulation", simulation={"clients": 4})
    ended = await garden.outcome(stream(garden))
    assert (ended["type"], ended["code"]) == ("aggregate.failed", "no-simulation")


async def test_a_federation_over_a_superlink_fails_where_there_is_none(garden: Garden) -> None:
    await garden.create(runtime="superlink")
    ended = await garden.outcome(stream(garden))
    assert (ended["type"], ended["code"]) == ("aggregate.failed", "no-superlink")
    assert "flowerbed up --superlink" in ended["reason"]
