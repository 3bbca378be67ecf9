"""What a stack on this machine needs, from its files to its services. Nothing is changed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from flowerbed.cli.api import Api
from flowerbed.cli.doctor import machine
from flowerbed.cli.doctor.report import Check, Finding, failed, ok, warning
from flowerbed.cli.failing import CommandFailed
from flowerbed.embedded import probes
from flowerbed.embedded.credentials import read_credentials
from flowerbed.embedded.errors import EmbeddedError, NotRunning
from flowerbed.embedded.layout import Layout
from flowerbed.embedded.listening import listens
from flowerbed.embedded.ports import is_free, read_ports
from flowerbed.embedded.record import StackRecord, read_record
from flowerbed.embedded.setup import program
from flowerbed.embedded.shape import base_of
from flowerbed.embedded.stack import Stack
from flowerbed.embedded.status import StackStatus, read_status

PACKAGES = (
    "flowerbed-cli", "flowerbed-contracts", "flowerbed-events", "flowerbed-embedded",
    "flowerbed-lease", "flowerbed-round-orchestrator", "flowerbed-aggregator-bridge",
    "flowerbed-artifact", "flowerbed-gateway",
)  # fmt: skip
PROGRAMS = ("caddy", "nats-server", "weed")
BEHIND = 1_000
"""Events behind which something is slow rather than busy."""
EXPIRES_SOON = timedelta(days=30)


def checks(layout: Layout) -> Sequence[Check]:
    stack = Server(layout)
    looks: dict[str, Callable[[], Iterable[Finding]]] = {
        "versions": partial(machine.versions, PACKAGES),
        "programs": programs,
        "apps": machine.apps,
        "disk": partial(machine.disk, layout.root),
        "memory": machine.memory,
        "clock": machine.clock_is_kept,
        "permissions": stack.permissions,
        "certificates": stack.certificates,
        "ports": stack.ports,
        "stack": stack.is_kept,
        "processes": stack.processes,
        "NATS": stack.nats_stores,
        "S3": stack.bucket,
        "lags": stack.lags,
        "dead letters": stack.dead_letters,
    }
    return [Check(name, look) for name, look in looks.items()]


def programs() -> Iterator[Finding]:
    for name in PROGRAMS:
        try:
            program(name)
        except EmbeddedError as error:
            yield failed("programs", str(error), "install flowerbed-embedded again")
            return
    yield ok("programs", f"{', '.join(PROGRAMS)} are installed")


class Server:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._status: StackStatus | None = None

    def permissions(self) -> Iterator[Finding]:
        layout = self._layout
        folders = (layout.secrets, layout.run, layout.logs, layout.nats, layout.s3, layout.spool)
        files = [path for path in layout.secrets.rglob("*") if path.is_file()]
        yield from machine.private("permissions", folders, files)

    def certificates(self) -> Iterator[Finding]:
        secrets, now = self._layout.secrets, datetime.now(UTC)
        if not (secrets / "ca.pem").exists():
            return
        ca = _certificate(secrets / "ca.pem")
        for name in ("ca", "server", "s3"):
            check, found = "certificates", _certificate(secrets / f"{name}.pem")
            seen = f"{name}.pem is valid until {found.not_valid_after_utc:%Y-%m-%d}"
            left = found.not_valid_after_utc - now
            do = "`flowerbed down`, then `flowerbed up`: it renews"
            if name == "ca":
                do = "plan a new stack and enrol its sites: the CA cannot be renewed in place"
            if not _is_issued_by(found, ca):
                yield failed(check, f"{name}.pem is not certified by ca.pem", do)
            elif left <= timedelta(0) or found.not_valid_before_utc > now:
                since = f"{found.not_valid_before_utc:%Y-%m-%d}"
                yield failed(check, f"{seen}, since {since}: not now", f"{do}; is the clock right?")
            elif left < EXPIRES_SOON:
                yield warning(check, seen, do)
            else:
                yield ok(check, seen)

    def ports(self) -> Iterator[Finding]:
        ports, record = read_ports(self._layout), self._record()
        if record is None or not record.is_supervised():
            taken = sorted(name for name, port in ports.items() if not is_free(port))
            if taken:
                do = "nothing: `flowerbed up` chooses others, but sites know the doors by theirs"
                yield warning("ports", f"held by other programs: {', '.join(taken)}", do)
            else:
                yield ok("ports", f"{len(ports)} ports are free for the stack")
            return
        strangers = [
            f"{one.name} ({ports[one.name]})"
            for one in record.components
            if one.process is not None
            and base_of(one.name) not in ("postgres", "s3", "caddy")  # their children listen
            and one.name in ports
            and one.process.is_alive()
            and not listens(one.process.pid, ports[one.name])
        ]
        if strangers:
            do = "see who listens there (`ss -ltnp`), end it, or `flowerbed down` and `up`"
            yield failed("ports", f"not held by their own processes: {', '.join(strangers)}", do)
        else:
            yield ok("ports", f"{len(ports)} ports, each held by its own process")

    def is_kept(self) -> Iterator[Finding]:
        record = self._record()
        if record is None:
            yield failed("stack", f"none was ever started in {self._layout.root}", "`flowerbed up`")
        elif not record.is_supervised():
            yield failed("stack", f"the stack in {self._layout.root} is down", "`flowerbed up`")
        elif not record.is_kept():
            yield warning("stack", "the supervisor has no keeper", "`flowerbed up` on it again")
        else:
            yield ok("stack", f"{record.state}, supervisor {record.supervisor.pid}")

    def processes(self) -> Iterator[Finding]:
        """Postgres, NATS, S3 and Caddy answer as ours; each service is ready."""
        if (status := self._found()) is None:
            return
        for one in status.components:
            do = f"`flowerbed logs {one.name}`; it is started again by itself when it ends"
            if not one.ready:
                yield failed("processes", f"{one.name}: {one.detail}", do)
            elif one.restarts:
                seen = f"{one.name} is ready, was started again {one.restarts} times"
                yield warning("processes", seen, f"`flowerbed logs {one.name}` tells why")
            else:
                yield ok("processes", f"{one.name} is ready")

    def nats_stores(self) -> Iterator[Finding]:
        """A server whose disk was full refuses all messages until it is started again."""
        if (status := self._found()) is None:
            return
        password = read_credentials(self._layout).nats["system"]
        for one in status.components:
            if base_of(one.name) != "nats" or not one.ready:
                continue
            trouble = probes.nats_stuck(read_ports(self._layout)[one.name], password)
            if trouble:
                do = "make room on the disk; the supervisor then starts it again by itself"
                yield failed("NATS", f"{one.name} stores nothing: {trouble}", do)
            else:
                yield ok("NATS", f"{one.name} stores messages")

    def bucket(self) -> Iterator[Finding]:
        if self._found() is None:
            return
        s3 = Stack(self._layout.root).s3
        port = read_ports(self._layout)["s3"]
        status, _ = probes.s3_call("HEAD", port, f"/{s3.bucket}", s3.access_key, s3.secret_key)
        if status == 200:
            yield ok("S3", f"the bucket {s3.bucket} answers to our key")
        else:
            do = "`flowerbed down`, then `flowerbed up`: it makes the bucket"
            yield failed("S3", f"the bucket {s3.bucket} answers {status}", do)

    def lags(self) -> Iterator[Finding]:
        if (status := self._found()) is None:
            return
        behind = [
            f"{one.name} {name} {lag:g}"
            for one in status.components
            for name, lag in one.lags.items()
            if lag >= BEHIND
        ]
        if behind:
            do = "look again in a minute; if it stays, `flowerbed dead-letters list` and logs"
            yield warning("lags", f"events behind: {', '.join(sorted(behind))}", do)
        else:
            yield ok("lags", f"nothing is {BEHIND} events behind")

    def dead_letters(self) -> Iterator[Finding]:
        if self._found() is None:
            return
        stack = Stack(self._layout.root)
        api = Api(stack.gateway_url, stack.api_token)
        try:
            found = api.get("/dead-letters", patience=10.0)
        except CommandFailed as error:
            yield failed("dead letters", str(error), "`flowerbed logs gateway`")
            return
        finally:
            api.close()
        if away := found["unavailable"]:
            yield warning("dead letters", f"no answer from {', '.join(away)}", "`flowerbed status`")
        if letters := found["dead_letters"]:
            seen = f"{len(letters)} events wait to be handled: {letters[0]['error'][:120]}"
            do = "mend the cause (`flowerbed dead-letters list`), then `... replay` them"
            yield warning("dead letters", seen, do)
        elif not away:
            yield ok("dead letters", "none")

    # --- parts ---------------------------------------------------------------

    def _record(self) -> StackRecord | None:
        return read_record(self._layout)

    def _found(self) -> StackStatus | None:
        """Asked once: several checks look at it."""
        if self._status is None:
            try:
                self._status = read_status(self._layout)
            except NotRunning:
                return None
        return self._status


def _certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def _is_issued_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
