"""`flowerbed client doctor`: each check finds the very thing that is broken at a site."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from typer.testing import CliRunner

from flowerbed.cli.client import app
from flowerbed.cli.doctor import network
from flowerbed.cli.doctor.client_checks import Site
from flowerbed.cli.doctor.report import Finding, Level
from flowerbed.contracts.values import DatasetRef
from flowerbed.runner import clock
from flowerbed.runner.identity import IdentityStore, new_key, signing_request
from flowerbed.runner.state import StateDir, write_json
from flowerbed.runner.status import read_status
from tests.integration.runner.authority import Authority
from tests.integration.runner.conftest import BASE, AgentThread
from tests.integration.runner.control_plane import CLIENT, TENANT, ControlPlane, wait_for


@pytest.fixture
def site(enrolled: StateDir) -> Site:
    return Site(enrolled)


def only(findings: Iterable[Finding]) -> Finding:
    (one,) = findings
    return one


def level(findings: Iterable[Finding]) -> Level:
    return only(findings).level


def moved_to(state: StateDir, url: str) -> Site:
    """The same site, whose control plane is said to be elsewhere."""
    store = IdentityStore(state)
    identity = store.load()
    assert identity is not None
    store.save(replace(identity, client_url=url))
    return Site(state)


def test_a_site_that_is_well_has_no_fault(
    enrolled: StateDir, reference: DatasetRef, control_plane: ControlPlane,
    start_agent: Callable[[], AgentThread],
) -> None:  # fmt: skip
    control_plane.offer()
    control_plane.orders.append(control_plane.order(BASE, dataset_sha256=reference.sha256))
    start_agent()
    wait_for(lambda: control_plane.reports, "the report")
    kept = set(enrolled.root.glob("*.json")) - {enrolled.status}  # which the agent writes
    before = {path: path.stat().st_mtime_ns for path in kept}

    shown = CliRunner().invoke(
        app, ["doctor", "--state-dir", str(enrolled.root), "--output", "json"]
    )

    told = json.loads(shown.stdout)
    faults = [one for one in told["findings"] if one["level"] == "failed"]
    # The test's agent is no process that was started by a command, and its app is one more.
    assert faults == [] and shown.exit_code == 0
    seen = {one["check"]: one for one in told["findings"]}
    assert CLIENT in seen["identity"]["seen"]
    assert seen["S3"]["level"] == "ok" and control_plane.store.url in seen["S3"]["seen"]
    assert control_plane.polls and not control_plane.declines
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_key_that_others_can_read_is_found(enrolled: StateDir, site: Site) -> None:
    assert level(site.permissions()) is Level.ok
    enrolled.client_pem.chmod(0o640)
    found = only(site.permissions())
    assert (found.level, found.do) == (Level.failed, f"chmod 600 {enrolled.client_pem}")


def test_a_client_that_is_not_enrolled_is_found(enrolled: StateDir, site: Site) -> None:
    assert level(site.identity_is_there()) is Level.ok
    enrolled.client_pem.write_text("no certificate")
    assert level(site.identity_is_there()) is Level.failed
    assert list(site.certificate()) == list(site.admission()) == []


def test_a_certificate_that_ran_out_or_was_not_renewed_is_found(
    enrolled: StateDir, site: Site, control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert level(site.certificate()) is Level.ok
    monkeypatch.setattr(
        IdentityStore, "received_at", lambda self: datetime.now(UTC) - timedelta(days=30)
    )
    assert level(site.certificate()) is Level.warning
    key = new_key()
    request = x509.load_pem_x509_csr(signing_request(key, CLIENT, TENANT).encode())
    past = datetime.now(UTC) - timedelta(minutes=1)
    pem = control_plane.authority.issue(request, CLIENT, TENANT, past)
    IdentityStore(enrolled).save_certificate(key, pem)
    found = only(site.certificate())
    assert found.level is Level.failed and "--invite" in found.do


def test_a_name_that_nobody_knows_is_found(enrolled: StateDir, site: Site) -> None:
    assert level(site.name()) is Level.ok
    found = only(moved_to(enrolled, "https://flowerbed.invalid:1").name())
    assert found.level is Level.failed and "flowerbed.invalid has no address" in found.seen
    assert level(moved_to(enrolled, "https://localhost:1").name()) is Level.ok


def test_a_door_that_takes_no_connection_is_found(enrolled: StateDir, site: Site) -> None:
    assert level(site.door()) is Level.ok
    closed = moved_to(enrolled, "https://127.0.0.1:9")
    for look in (closed.door, closed.tls, closed.admission):
        assert level(look()) is Level.failed
    assert level(closed.time_apart()) is Level.warning


def test_a_door_that_another_ca_has_certified_is_found(
    enrolled: StateDir, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "until" in only(site.tls()).seen and level(site.tls()) is Level.warning  # for a day
    monkeypatch.setattr(network, "EXPIRES_SOON", timedelta(hours=1))
    assert level(site.tls()) is Level.ok
    (tmp_path / "other").mkdir()
    store = IdentityStore(enrolled)
    identity = store.load()
    assert identity is not None
    store.save(replace(identity, ca_pem=Authority(tmp_path / "other").pem))
    found = only(Site(enrolled).tls())
    assert found.level is Level.failed and "enrol anew" in found.do


@pytest.mark.parametrize(
    ("offset", "expected"), [(0, Level.ok), (-3600, Level.warning), (200_000, Level.failed)]
)
def test_a_clock_that_is_wrong_is_found(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: int, expected: Level
) -> None:
    file = tmp_path / "offset"
    file.write_text(str(offset))
    monkeypatch.setenv(clock.OFFSET_FILE_VARIABLE, str(file))
    found = only(site.time_apart())
    assert found.level is expected
    if offset:
        told = float(found.seen.split("clock is ")[1].split()[0])
        assert abs(told - abs(offset)) < 3


@pytest.mark.parametrize(("status", "expected"), [(403, Level.failed), (503, Level.failed)])
def test_a_client_that_is_revoked_is_found(
    site: Site, control_plane: ControlPlane, status: int, expected: Level
) -> None:
    assert level(site.admission()) is Level.ok
    control_plane.fail_next("/heartbeat", status)
    assert level(site.admission()) is expected
    assert control_plane.claims == {}


def test_a_store_that_does_not_answer_is_found(enrolled: StateDir, site: Site) -> None:
    assert "not known yet" in only(site.store()).seen
    document = {
        "pid": 1, "started_at": 0, "client_id": CLIENT, "tenant": TENANT, "server": "x",
        "certificate_expires_at": "2030-01-01T00:00:00Z", "store": "http://127.0.0.1:9",
    }  # fmt: skip
    write_json(enrolled.status, document)
    assert level(site.store()) is Level.failed
    write_json(enrolled.status, document | {"store": "https://flowerbed.invalid"})
    assert any("has no address" in one.seen for one in site.store())


def test_a_dataset_that_is_gone_or_another_is_found(
    enrolled: StateDir, site: Site, folder: Path, reference: DatasetRef
) -> None:
    assert level(site.dataset()) is Level.ok
    document = {
        "pid": 1, "started_at": 0, "client_id": CLIENT, "tenant": TENANT, "server": "x",
        "certificate_expires_at": "2030-01-01T00:00:00Z", "dataset": reference.label,
    }  # fmt: skip
    write_json(enrolled.status, document)
    assert level(site.dataset()) is Level.ok
    (folder / "rows.txt").write_text("other rows\n")
    found = only(site.dataset())
    assert found.level is Level.failed and reference.label in found.seen
    shutil.rmtree(folder)
    assert level(site.dataset()) is Level.failed
    enrolled.settings.unlink()
    assert level(site.dataset()) is Level.failed


def test_a_damaged_journal_is_found(enrolled: StateDir, site: Site) -> None:
    assert "none yet" in only(site.journal()).seen
    with sqlite3.connect(enrolled.journal) as opened:
        opened.execute("CREATE TABLE t (x)")
    assert level(site.journal()) is Level.ok
    enrolled.journal.write_bytes(b"no database " * 100)
    assert level(site.journal()) is Level.failed


def test_an_agent_that_does_not_run_is_found(enrolled: StateDir, site: Site) -> None:
    assert read_status(enrolled) is None
    found = only(site.agent())
    assert (found.level, found.seen) == (Level.warning, "does not run")
