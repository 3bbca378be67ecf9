"""The control plane at each size: more runners enrol, take up a lease, and wait for work."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from scripts.bench.idle import below, name_of, seconds_used
from scripts.bench.models import say
from scripts.bench.scale.crowd import AT_ONCE, Crowds, Found
from tests.e2e.documents import hospital
from tests.support.field import Field, until

TAG = "scale"
TENANT = "acme"
NEVER = 1_000_000
"""Clients that a federation waits for which must not start."""
LONGEST = 900.0
SETTLE = 5.0
GONE = "ended at once"
TTL = 120
"""Seconds of a lease, as it is where nobody says otherwise: a heartbeat every 20 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What was seen with so many runners. Seconds; bytes by process group; counts."""

    runners: int
    added: int
    invites: Sequence[float]
    invited_in: float
    enrolments: Sequence[float]
    enrolled_in: float
    offers: Sequence[float]
    claims: Sequence[float]
    joined_in: float
    window: float
    found: Found
    used: Mapping[str, float]
    generator: float
    memory: Counter[str]
    files: Counter[str]
    load: float

    @property
    def answers(self) -> int:
        """Calls that were answered in the window, other than the generator's look at itself."""
        return sum(len(of) for kind, of in self.found.seconds.items() if "lag" not in kind)


@dataclass(slots=True)
class Scale:
    """The stack under measurement, and the runners that it has by now."""

    control: Field
    crowds: Crowds
    window: float
    runners: int = 0
    sizes: list[Size] = field(default_factory=list)

    def grow(self, to: int) -> Size:
        """Enrol up to so many, have all hold a lease, and watch them wait."""
        enrolled = self.enrol(to)
        federation, joined = self._join(to)
        size = Size(runners=to, **enrolled, **joined, **self._watch())
        if federation is not None:
            self._end(federation)
        self.sizes.append(size)
        return size

    def hold(self, to: int) -> None:
        """Enrol so many, have all hold a lease, and leave them waiting for work."""
        self.enrol(to)
        self._join(to)

    def enrol(self, to: int) -> dict[str, Any]:
        """As many more as are missing; all of them poll for leases afterwards."""
        added, self.runners = to - self.runners, to
        began = time.monotonic()
        keys, invites = invite(self.control, added)
        invited_in = time.monotonic() - began
        say(step="invited", runners=to, seconds=round(invited_in, 2))
        began = time.monotonic()
        enrolments = self.crowds.enrol(keys)
        enrolled_in = time.monotonic() - began
        say(step="enrolled", runners=to, seconds=round(enrolled_in, 2))
        self._all("polling")
        return {
            "added": added, "invites": invites, "invited_in": invited_in,
            "enrolments": enrolments, "enrolled_in": enrolled_in,
        }  # fmt: skip

    def _watch(self) -> dict[str, Any]:
        """The window in which nothing but waiting and heartbeats happens."""
        time.sleep(SETTLE)
        self.crowds.begin()
        usage, generator = Usage(self.control), self.crowds.cpu_seconds()
        began, before = time.monotonic(), usage.look()
        time.sleep(self.window)
        used = {name: seconds - before.get(name, 0.0) for name, seconds in usage.look().items()}
        generator = self.crowds.cpu_seconds() - generator
        window, found = time.monotonic() - began, self.crowds.found()
        memory, files = held(list(usage.seconds))
        say(step="watched", runners=self.runners, failed=dict(found.failed))
        return {
            "window": window, "found": found, "used": used, "generator": generator,
            "memory": memory, "files": files, "load": psutil.getloadavg()[0],
        }  # fmt: skip

    def _join(self, runners: int) -> tuple[str | None, dict[str, Any]]:
        """An open federation that never starts: all are offered a lease, and take it."""
        if runners == 0:
            return None, {"offers": (), "claims": (), "joined_in": 0.0}
        self.crowds.begin()
        submitted, began = time.time(), time.monotonic()
        federation = self.control.submit(waiting())
        self._all("held")
        joined_in = time.monotonic() - began
        found = self.crowds.found()
        offers = [at - submitted for at in found.moments["offered"]]
        say(step="joined", runners=runners, seconds=round(joined_in, 2), failed=dict(found.failed))
        return federation, {
            "offers": offers, "claims": found.seconds["claim"], "joined_in": joined_in,
        }  # fmt: skip

    def _all(self, what: str) -> None:
        def reached() -> bool:
            count = self.crowds.count()
            assert not count["ended"], f"{count['ended']} runners have ended"
            return count[what] >= self.runners

        until(reached, f"{self.runners} runners are {what}", LONGEST)

    def _end(self, federation: str) -> None:
        self.control.api.post(f"/federations/{federation}/cancel", {"reason": "it was measured"})
        until(lambda: self.crowds.count()["held"] == 0, "every lease has ended", LONGEST)


@dataclass(slots=True)
class Usage:
    """Processor seconds of the stack's processes, those that have ended meanwhile among them."""

    control: Field
    seconds: dict[psutil.Process, float] = field(default_factory=dict)
    names: dict[psutil.Process, str] = field(default_factory=dict)

    def look(self) -> dict[str, float]:
        """Until now, by process group."""
        self.seconds |= seconds_used(below(str(self.control.stack.state_dir)))
        total: dict[str, float] = {}
        for process, used in self.seconds.items():
            if process not in self.names:
                with suppress(psutil.Error):
                    self.names[process] = name_of(process)
            name = self.names.get(process, GONE)
            total[name] = total.get(name, 0.0) + used
        return total


def waiting(**spec: Any) -> dict[str, Any]:
    """A federation of the synthetic app that waits for more clients than there are."""
    return hospital(
        app="builtin:synthetic", model_ref={"uri": "builtin:synthetic"},
        dataset_spec={"uris": ["local:synthetic"]}, lease={"ttl_seconds": TTL},
        client_selector={"tags": [TAG]},
        **{
            "min_clients": NEVER,
            "num_rounds": 1,
            "train": {"seed": 1, "elements": 1000, "tensors": 1},
            "round_policy": {"join_deadline_seconds": 86_400.0},
            **spec,
        },
    )  # fmt: skip


def invite(control: Field, count: int) -> tuple[list[str], list[float]]:
    """Invite keys from the gateway, as many at once as there are enrolments at once."""

    def one(_: int) -> tuple[str, float]:
        began = time.perf_counter()
        return control.invite(TENANT, TAG), time.perf_counter() - began

    with ThreadPoolExecutor(AT_ONCE) as pool:
        made = list(pool.map(one, range(count)))
    return [key for key, _ in made], [seconds for _, seconds in made]


def held(processes: Sequence[psutil.Process]) -> tuple[Counter[str], Counter[str]]:
    """PSS in bytes and open files, by process group."""
    memory: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for process in processes:
        try:
            name = name_of(process)
            memory[name] += process.memory_full_info().pss
            files[name] += process.num_fds()
        except psutil.Error:  # it has ended
            continue
    return memory, files
