"""The adapter to a real SuperLink: what is asked twice is there once, and its absence is told."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowerbed.aggregator import superlink as adapter
from flowerbed.aggregator.superlink import SuperLink, raw_key
from flowerbed.contracts.run_bundle import run_bundle
from flowerbed.embedded.control import down, up
from flowerbed.embedded.stack import Stack
from flowerbed.embedded.testing import remove
from flowerbed.events.errors import Unavailable
from flowerbed.flower_apps import registry
from flowerbed.runner.node_files import NodeFiles


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    state = tmp_path_factory.mktemp("superlink") / "state"
    try:
        yield up(state, services=(), superlink=True)
    finally:
        down(state)
        remove(state)


@pytest.fixture(scope="module")
def link(stack: Stack) -> SuperLink:
    return SuperLink(f"localhost:{stack.port('superlink')}", stack.ca_file)


@pytest.fixture
def federation() -> str:
    return f"fed-{uuid.uuid4().hex[:16]}"


FAB = run_bundle({}, "no.such:app", registry.bridge(), {}, {})


def test_a_repeated_start_finds_the_first(
    link: SuperLink, federation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "PAGE", 1)  # as where there are many runs
    assert link.newest(federation) is None
    first = link.start(federation, "acme", 1, FAB)
    assert link.start(federation, "acme", 1, FAB).run_id == first.run_id
    assert link.start(f"{federation}-other", "acme", 1, FAB).run_id != first.run_id

    second = link.start(federation, "acme", 2, FAB)
    assert second.run_id != first.run_id
    assert link.start(federation, "acme", 1, FAB).run_id == second.run_id, "no attempt goes back"
    newest = link.newest(federation)
    assert newest is not None and (newest.run_id, newest.attempt) == (second.run_id, 2)
    assert len([run for run in link.runs() if run.federation_id == federation]) == 2


def test_a_run_that_was_stopped_has_ended(link: SuperLink, federation: str) -> None:
    run = link.start(federation, "acme", 1, FAB)
    found = link.run(run.run_id)
    assert found is not None and found.ended is None
    link.stop(run.run_id)
    found = link.run(run.run_id)
    assert found is not None and found.ended is not None and "stopped" in found.ended
    link.stop(run.run_id)  # again changes nothing


def test_a_run_that_it_has_forgotten_is_none(link: SuperLink) -> None:
    assert link.run(12345) is None


def test_who_holds_a_lease_is_let_in_and_nobody_else(
    link: SuperLink, federation: str, tmp_path: Path
) -> None:
    def inside() -> set[bytes]:
        return {node.key for node in link.nodes() if node.federation_id == federation}

    keys = {lease: NodeFiles(tmp_path / lease).public_key() for lease in ("a", "b", "c")}
    raw = {lease: raw_key(key) for lease, key in keys.items()}
    for _ in range(2):
        link.let_in(federation, {lease: keys[lease] for lease in "ab"})
    assert inside() == {raw["a"], raw["b"]}
    assert len(link.nodes()) == len({node.key for node in link.nodes()})
    for _ in range(2):
        link.let_in(federation, {lease: keys[lease] for lease in "bc"})
    assert inside() == {raw["b"], raw["c"]}

    link.let_in(federation, keys)
    assert inside() == {raw["b"], raw["c"]}, "Flower lets no key in again; the others stay"
    link.let_in(f"{federation}-other", {})
    assert inside() == {raw["b"], raw["c"]}
    link.let_in(federation, {})
    assert inside() == set()


def test_the_absence_of_the_superlink_is_told(stack: Stack) -> None:
    nobody = SuperLink(f"localhost:{stack.port('s3')}", stack.ca_file)
    with pytest.raises(Unavailable, match="the SuperLink did not answer"):
        nobody.nodes()


def test_no_secret_is_in_a_runs_config(link: SuperLink, stack: Stack, federation: str) -> None:
    """Whoever is on this machine may list runs and fetch bundles."""
    link.start(federation, "acme", 1, FAB)
    told = json.loads((stack.layout.run / "relay.json").read_text())
    database = (stack.state_dir / "superlink" / "superlink.sqlite3").read_bytes()
    for secret in (told["internal_token"], told["s3_secret_key"]):
        assert secret.encode() not in database
