"""`flowerbed artifact`: what it asks, what it compares, what it refuses to write."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowerbed.artifact.blobs import DigestDiffers
from flowerbed.cli import artifact
from flowerbed.cli.calling import Call
from flowerbed.contracts.values import ArtifactRef
from flowerbed.events.errors import NotFound
from tests.unit.cli.federation_views import FED, a_federation, an_artifact, completed, digest
from tests.unit.cli.gateway_stub import StubGateway, run, stub_gateway

MADE = [an_artifact("base", 0, "base"), an_artifact("one", 1), an_artifact("state", 1, "state")]


class StubBlobs:
    """Objects by uri: what hashing each would say."""

    def __init__(self, stored: dict[str, str]) -> None:
        self.stored = stored

    def digest(self, uri: str) -> ArtifactRef:
        if uri not in self.stored:
            raise NotFound(f"{uri} is not in S3")
        return ArtifactRef(uri=uri, sha256=self.stored[uri], size=1)

    def download(self, uri: str, path: Path, *, sha256: str) -> None:
        if self.digest(uri).sha256 != sha256:
            path.unlink()
            raise DigestDiffers(f"{uri} has sha256 {self.stored[uri]}, not {sha256}")
        path.write_bytes(b"bytes")


@pytest.fixture
def stub() -> Iterator[StubGateway]:
    with stub_gateway() as gateway:
        gateway.answer(f"GET /federations/{FED}", a_federation(artifacts=MADE))
        yield gateway


@pytest.fixture
def blobs(monkeypatch: pytest.MonkeyPatch) -> StubBlobs:
    stored = StubBlobs({one["uri"]: one["sha256"] for one in MADE})
    monkeypatch.setattr(Call, "blobs", lambda self: stored)
    return stored


def _folds(stub: StubGateway, number: int, actual: str, expected: str | None = None) -> None:
    stub.answer(
        f"POST /artifacts/{FED}/{number}/verify",
        {"actual": actual, "expected": expected or actual, "n_updates": 2, "seconds": 0.5},
    )


def test_a_federations_checkpoints_are_verified(stub: StubGateway, blobs: StubBlobs) -> None:
    _folds(stub, 0, digest("base"))
    _folds(stub, 1, digest("one"))

    found = run(artifact.app, "verify", FED, url=stub.url)

    assert found.exit_code == 0
    assert "2 of 2 verified" in found.stdout


@pytest.mark.parametrize("what", [f"{FED}/1", digest("one")])
def test_one_checkpoint_is_verified(stub: StubGateway, blobs: StubBlobs, what: str) -> None:
    stub.answer(f"GET /artifacts/{digest('one')}", {"records": [MADE[1]]})
    _folds(stub, 1, digest("one"))

    found = run(artifact.app, "verify", what, "-o", "json", url=stub.url)

    (result,) = json.loads(found.stdout)
    assert found.exit_code == 0
    assert result["is_verified"] and result["stored_sha256"] == digest("one")


def test_a_fold_that_differs_is_exit_code_1(stub: StubGateway, blobs: StubBlobs) -> None:
    _folds(stub, 0, digest("base"))
    _folds(stub, 1, digest("other"), digest("one"))

    found = run(artifact.app, "verify", FED, url=stub.url)

    assert found.exit_code == 1
    assert "DIFFERS" in found.stdout and "1 of 2 verified" in found.stdout


def test_an_object_that_differs_is_exit_code_1(stub: StubGateway, blobs: StubBlobs) -> None:
    _folds(stub, 1, digest("one"))
    blobs.stored[MADE[1]["uri"]] = digest("other")
    found = run(artifact.app, "verify", f"{FED}/1", url=stub.url)
    assert found.exit_code == 1 and "DIFFERS" in found.stdout


def test_an_object_that_is_gone_does_not_stop_the_others(
    stub: StubGateway, blobs: StubBlobs
) -> None:
    _folds(stub, 1, digest("one"))
    del blobs.stored[MADE[0]["uri"]]

    found = run(artifact.app, "verify", FED, url=stub.url)

    assert found.exit_code == 1
    assert "is not in S3" in found.stdout and "1 of 2 verified" in found.stdout


@pytest.mark.parametrize(
    ("what", "exit_code"), [(f"{FED}/x", 2), (f"{FED}/7", 1), ("fed-none", 2), ("0" * 64, 2)]
)
def test_nothing_to_verify_is_no_success(
    stub: StubGateway, blobs: StubBlobs, what: str, exit_code: int
) -> None:
    assert run(artifact.app, "verify", what, url=stub.url).exit_code == exit_code


def test_a_final_checkpoint_is_downloaded(
    stub: StubGateway, blobs: StubBlobs, tmp_path: Path
) -> None:
    final = completed()["final"]
    stub.answers[f"GET /federations/{FED}"] = [(200, completed())]
    blobs.stored[final["uri"]] = final["sha256"]
    target = tmp_path / "model.safetensors"

    found = run(artifact.app, "download", FED, "--to", str(target), url=stub.url)

    assert found.exit_code == 0 and target.read_bytes() == b"bytes"
    assert list(tmp_path.iterdir()) == [target]


def test_a_wrong_object_is_never_written(
    stub: StubGateway, blobs: StubBlobs, tmp_path: Path
) -> None:
    stub.answer(f"GET /artifacts/{digest('one')}", {"records": [MADE[1]]})
    blobs.stored[MADE[1]["uri"]] = digest("other")
    target = tmp_path / "model.safetensors"

    found = run(artifact.app, "download", digest("one"), "--to", str(target), url=stub.url)

    assert found.exit_code == 1 and "has sha256" in found.stderr
    assert list(tmp_path.iterdir()) == []
    elsewhere = str(tmp_path / "none" / "model")
    found = run(artifact.app, "download", digest("one"), "--to", elsewhere, url=stub.url)
    assert found.exit_code == 2


def test_a_federation_without_a_final_checkpoint_says_where_it_stands(
    stub: StubGateway, blobs: StubBlobs, tmp_path: Path
) -> None:
    found = run(artifact.app, "download", FED, "--to", str(tmp_path / "m"), url=stub.url)
    assert found.exit_code == 1 and "is running: no final checkpoint" in found.stderr


def test_artifacts_are_listed_and_shown(stub: StubGateway) -> None:
    stub.answer(f"GET /artifacts/{digest('one')}", {"records": [MADE[1]]})
    listed = run(artifact.app, "list", FED, url=stub.url)
    shown = run(artifact.app, "show", digest("one"), url=stub.url)
    as_json = run(artifact.app, "show", digest("one"), "-o", "json", url=stub.url)
    assert all(one["sha256"] in listed.stdout for one in MADE)
    assert MADE[1]["uri"] in shown.stdout and "stable" in shown.stdout
    assert json.loads(as_json.stdout) == [MADE[1]]
    assert json.loads(run(artifact.app, "list", FED, "-o", "json", url=stub.url).stdout) == MADE
    assert run(artifact.app, "show", "short", url=stub.url).exit_code == 2


@pytest.mark.parametrize(
    ("checkpoints", "is_complete", "exit_code", "message"),
    [(2, True, 0, ""), (2, False, 1, "has a gap"), (0, False, 1, "no checkpoint yet")],
)
def test_lineage_is_shown_and_a_gap_is_a_failure(
    stub: StubGateway, checkpoints: int, is_complete: bool, exit_code: int, message: str
) -> None:
    folded = [{"client_id": "client-a", "weight": 10}]
    node: dict[str, Any] = {**MADE[1], "parents": [digest("base")], "folded": folded}
    found = {
        "checkpoints": [MADE[0] | {"folded": []}, node][:checkpoints],
        "is_complete": is_complete,
    }
    stub.answer(f"GET /federations/{FED}/lineage", found)

    shown = run(artifact.app, "lineage", FED, url=stub.url)
    as_json = run(artifact.app, "lineage", FED, "-o", "json", url=stub.url)

    assert shown.exit_code == as_json.exit_code == exit_code
    assert message in shown.stderr
    if checkpoints:
        assert "client-a x10" in shown.stdout


def test_promotion_and_revocation_are_posted(stub: StubGateway) -> None:
    sha256 = hashlib.sha256(b"x").hexdigest()
    stub.answer(f"POST /artifacts/{sha256}/promote", {})
    stub.answer(f"POST /artifacts/{sha256}/revoke", {})

    promoted = run(artifact.app, "promote", sha256, "--channel", "beta", url=stub.url)
    revoked = run(artifact.app, "revoke", sha256, "--federation", FED, url=stub.url)

    assert promoted.exit_code == revoked.exit_code == 0
    assert [body for _, _, body in stub.asked] == [
        {"channel": "beta", "federation_id": None},
        {"reason": "", "federation_id": FED},
    ]


def _history(stub: StubGateway, *events: dict[str, Any]) -> None:
    stub.answers[f"GET /federations/{FED}/events"] = [
        (200, {"events": list(found), "next_after": 7})
        for found in ((*events,), (), (*events,), ())
    ]


def _left(stub: StubGateway, blobs: StubBlobs, *names: str) -> None:
    """A ServerApp that has ended, and those files of it."""
    files = []
    for name in names:
        uri = f"s3://flowerbed/files/{digest(name)}"
        blobs.stored[uri] = digest(name)
        files.append({"name": name, "artifact": {"uri": uri, "sha256": digest(name), "size": 5}})
    event = {"type": "fl.serverapp.completed", "data": {"files": files}}
    _history(stub, event)


def test_what_a_serverapp_has_left_is_listed_and_fetched(
    stub: StubGateway, blobs: StubBlobs, tmp_path: Path
) -> None:
    _left(stub, blobs, "plots/loss.png", "model.pt")

    listed = run(artifact.app, "files", FED, "-o", "json", url=stub.url)
    found = run(artifact.app, "files", FED, "--to", str(tmp_path / "results"), url=stub.url)

    assert [one["name"] for one in json.loads(listed.stdout)] == ["plots/loss.png", "model.pt"]
    assert found.exit_code == 0 and digest("model.pt") in found.stdout
    assert (tmp_path / "results/plots/loss.png").read_bytes() == b"bytes"
    assert (tmp_path / "results/model.pt").read_bytes() == b"bytes"


def test_a_file_that_would_lie_elsewhere_fetches_nothing(
    stub: StubGateway, blobs: StubBlobs, tmp_path: Path
) -> None:
    _left(stub, blobs, "model.pt", "../other/.profile")
    found = run(artifact.app, "files", FED, "--to", str(tmp_path / "results"), url=stub.url)
    assert found.exit_code == 1 and "would lie outside of" in found.stderr
    assert list(tmp_path.rglob("*")) == []


def test_without_a_whole_serverapp_there_are_no_files(stub: StubGateway, blobs: StubBlobs) -> None:
    _history(stub)
    found = run(artifact.app, "files", FED, url=stub.url)
    assert found.exit_code == 1 and "server_app: whole" in found.stderr
