"""What a site needs to take part, from its identity to its disk. Nothing is changed anywhere."""

import sqlite3
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial

import httpx

from flowerbed.cli.doctor import machine, network
from flowerbed.cli.doctor.network import Address
from flowerbed.cli.doctor.report import Check, Finding, failed, ok, warning
from flowerbed.runner.control import running_agent
from flowerbed.runner.dataset import Dataset
from flowerbed.runner.errors import BadInput
from flowerbed.runner.identity import Identity, IdentityStore
from flowerbed.runner.keeping import running_keeper
from flowerbed.runner.settings import AgentSettings
from flowerbed.runner.state import StateDir
from flowerbed.runner.status import read_status

PACKAGES = ("flowerbed-runner", "flowerbed-contracts", "flowerbed-flower-apps", "flwr", "torch")
NEW_INVITE = "ask the operator for a new invite, then `flowerbed client start --invite @FILE`"
_NOBODYS_LEASE = "/v1/leases/doctor/heartbeat"
"""Asking about a lease that nobody has changes nothing, and says whether we are admitted."""


def checks(state: StateDir) -> Sequence[Check]:
    site = Site(state)
    looks: dict[str, Callable[[], Iterable[Finding]]] = {
        "versions": partial(machine.versions, PACKAGES),
        "apps": machine.apps,
        "disk": partial(machine.disk, state.root),
        "memory": machine.memory,
        "clock": machine.clock_is_kept,
        "permissions": site.permissions,
        "identity": site.identity_is_there,
        "certificate": site.certificate,
        "name": site.name,
        "door": site.door,
        "TLS": site.tls,
        "time": site.time_apart,
        "admission": site.admission,
        "S3": site.store,
        "dataset": site.dataset,
        "journal": site.journal,
        "agent": site.agent,
    }
    return [Check(name, look) for name, look in looks.items()]


class Site:
    def __init__(self, state: StateDir) -> None:
        self._state = state
        self._store = IdentityStore(state)

    def permissions(self) -> Iterator[Finding]:
        state = self._state
        files = (state.identity, state.client_pem, *state.root.glob("enrolling-*.pem"))
        folders = (state.root, state.results, state.states, state.work)
        yield from machine.private("permissions", folders, files)

    def identity_is_there(self) -> Iterator[Finding]:
        if (identity := self._identity()) is None:
            yield failed("identity", f"no client is enrolled in {self._state.root}", NEW_INVITE)
        else:
            yield ok("identity", f"{identity.client_id} of tenant {identity.tenant}")

    def certificate(self) -> Iterator[Finding]:
        if self._identity() is None:
            return
        began, until, now = self._store.received_at(), self._store.expires_at(), datetime.now(UTC)
        seen = f"until {until:%Y-%m-%d %H:%M} UTC"
        if until <= now:
            yield failed("certificate", f"ran out: {seen}", NEW_INVITE)
        elif (until - now) < (until - began) / 4:
            do = "start the agent: it renews at two thirds of the certificate's life"
            yield warning("certificate", f"not renewed, {seen}", do)
        else:
            yield ok("certificate", seen)

    def name(self) -> Iterator[Finding]:
        if (identity := self._identity()) is not None:
            yield from network.name("name", Address.of(identity.client_url))

    def door(self) -> Iterator[Finding]:
        if (identity := self._identity()) is not None:
            yield from network.reachable("door", Address.of(identity.client_url))

    def tls(self) -> Iterator[Finding]:
        if (identity := self._identity()) is not None:
            context = self._store.client_context(identity)
            yield from network.tls("TLS", Address.of(identity.client_url), context)

    def time_apart(self) -> Iterator[Finding]:
        if (identity := self._identity()) is None:
            return
        with self._http(identity) as http:
            url = f"{identity.client_url}/.well-known/jwks.json"
            yield from network.time_apart("time", http, url)

    def admission(self) -> Iterator[Finding]:
        """Whether the control plane takes our certificate, or has revoked us."""
        if (identity := self._identity()) is None:
            return
        try:
            with self._http(identity) as http:
                answer = http.post(identity.client_url + _NOBODYS_LEASE, json={"epoch": 1})
        except httpx.HTTPError as error:
            do = "see the findings about the door and TLS"
            yield failed("admission", f"nobody answers: {error}", do)
            return
        if answer.status_code in (401, 403):
            yield failed("admission", f"refused: {_detail(answer)}", NEW_INVITE)
        elif answer.status_code >= 500:
            seen = f"the door answers {answer.status_code}: {_detail(answer)}"
            yield failed("admission", seen, "wait: the control plane's operator has to mend it")
        else:
            yield ok("admission", f"the control plane admits {identity.client_id}")

    def store(self) -> Iterator[Finding]:
        """A HEAD to where the last order's presigned addresses were."""
        identity, status = self._identity(), read_status(self._state)
        if identity is None:
            return
        if status is None or not status.store:
            do = "look again after the first round: orders name S3's address"
            yield warning("S3", "its address is not known yet", do)
            return
        address = Address.of(status.store)
        findings = [*network.name("S3", address), *network.reachable("S3", address)]
        if trouble := [one for one in findings if one.do]:
            yield from trouble
            return
        context = ssl.create_default_context()
        context.load_verify_locations(cadata=identity.ca_pem)
        try:
            answer = httpx.head(status.store, verify=context, timeout=network.PATIENCE)
        except httpx.HTTPError as error:
            do = f"let this machine speak HTTP with {address}, also through its proxy"
            yield failed("S3", f"{status.store} does not answer: {error}", do)
        else:
            yield ok("S3", f"{status.store} answers (HEAD: {answer.status_code})")

    def dataset(self) -> Iterator[Finding]:
        try:
            settings = AgentSettings.load(self._state)
            dataset = Dataset.named(settings.dataset, settings.task, self._state.digests)
            reference = dataset.reference(keep=False)
        except BadInput as error:
            do = "put it right, or name another: `flowerbed client start --dataset local:/path`"
            yield failed("dataset", str(error), do)
            return
        status, seen = read_status(self._state), f"{reference.label} in {dataset.folder}"
        if status is not None and status.dataset and status.dataset != reference.label:
            do = "`flowerbed client stop --release`, then start: leases are claimed anew"
            yield failed("dataset", f"{seen}; the agent has read {status.dataset}", do)
        else:
            yield ok("dataset", seen)

    def journal(self) -> Iterator[Finding]:
        path = self._state.journal
        if not path.exists():
            yield ok("journal", "none yet")
            return
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as opened:
                (answer,) = opened.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.Error as error:
            answer = str(error)
        if answer == "ok":
            yield ok("journal", "whole")
        else:
            do = f"stop the agent, move {path} away, start it: finished work may be done again"
            yield failed("journal", f"damaged: {answer}", do)

    def agent(self) -> Iterator[Finding]:
        status, is_running = read_status(self._state), running_agent(self._state) is not None
        if status is None or not is_running:
            yield warning("agent", "does not run", "`flowerbed client start --dataset local:/path`")
            return
        if status.phase == "polling":
            yield ok("agent", f"polls, pid {status.pid}")
        else:
            trouble = f": {status.last_error.message}" if status.last_error else ""
            do = "see the other findings, and `flowerbed client log`"
            yield warning("agent", f"{status.phase}{trouble}", do)
        if running_keeper(self._state) is None:
            do = "`flowerbed client stop`, then start; with --foreground your service manager does"
            yield warning("agent", "nobody starts it again if it is killed", do)

    # --- parts ---------------------------------------------------------------

    def _identity(self) -> Identity | None:
        try:
            return self._store.load()
        except (ValueError, OSError):
            return None

    def _http(self, identity: Identity) -> httpx.Client:
        context = self._store.client_context(identity)
        return httpx.Client(verify=context, timeout=network.PATIENCE)


def _detail(answer: httpx.Response) -> str:
    try:
        problem = answer.json()
        return str(problem.get("detail") or problem.get("code"))
    except (ValueError, AttributeError):
        return f"HTTP {answer.status_code}"
