"""What a round costs beside its training: Flowerbed, Flower deployed, and Flower simulated.

    python -m scripts.bench.rounds --rounds 10 --seed 7

The same app (the built-in hospital), the same four hospitals' rows, as many rounds with a training
and an evaluation exchange each, one setup after the other:

    flowerbed   the embedded stack and four runners: mTLS, fsync, as they come
    deployment  one SuperLink with a database file and four SuperNodes of the pinned version
    fastest     the same with the settings that were fastest here (`FASTEST`), state in memory
    simulation  four virtual clients of Flower's simulation on Ray, as it comes (two cores a client)

The overhead of a round is what `make demo` prints: the seconds from the round's start to its end,
less those that the slowest client's app took to train, and the slowest one's to evaluate. With
Flowerbed they are the gateway's: from `fl.round.started` to `fl.round.completed`, in whose
transaction the next round starts. With Flower a round begins when the strategy is about to choose
its clients and ends when the evaluation is aggregated, and a mod around the app's functions tells
their seconds (`flower_hospital/`). A deployment's ClientApp is a new process for each message: the
start of the process is overhead, what the app loads when it is first called counts as training.

The first two rounds are warm-up and left out. `--try-settings` compares settings of Flower instead.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from flowerbed.cli.api import Api
from flowerbed.cli.attempts import times
from flowerbed.embedded.testing import running_stack
from scripts.bench.flower_peer import Flower, Run, Setup, Value, until
from scripts.prepare_data import prepare
from tests.e2e.documents import hospital
from tests.support.field import ENDED, Field, hospitals

APP = Path(__file__).parent / "flower_hospital"
N_CLIENTS, WARM_UP = 4, 2
TRAIN = {"local_epochs": 5, "batch_size": 32, "learning_rate": 0.02}
LOOK_EVERY = 2.0
LONGEST = 120.0
"""Seconds of one round, on a machine with much else to do."""

DEPLOYMENT = Setup(nodes=tuple({"partition-id": place} for place in range(N_CLIENTS)))
FASTEST = replace(DEPLOYMENT, has_database=False, poll_seconds=0.2)
SIMULATED = replace(DEPLOYMENT, has_database=False, simulation={})
SETUPS = {
    "deployment": DEPLOYMENT,
    "fastest": FASTEST,
    "simulation": SIMULATED,
}
OTHERS = {
    "poll-1": replace(FASTEST, poll_seconds=None),
    "poll-0.5": replace(FASTEST, poll_seconds=0.5),
    "poll-0.2": FASTEST,
    "poll-0.05": replace(FASTEST, poll_seconds=0.05),
    "poll-0.2-process": replace(FASTEST, isolation="process"),
    "ray-2-cores": SIMULATED,
    "ray-1-core": replace(SIMULATED, simulation={"client_resources_num_cpus": 1}),
    "ray-told-4-cores": replace(
        SIMULATED, simulation={"client_resources_num_cpus": 1, "init_args_num_cpus": N_CLIENTS}
    ),
}
"""What `--try-settings` compares: all keep their state in memory; cores are those of a client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Seconds: of all of it, of the slowest clients' apps, and the rest."""

    number: int
    total: float
    in_apps: float
    overhead: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    data: Path
    scratch: Path
    sites: tuple[str, ...]
    rounds: int
    seed: int

    @property
    def n_rounds(self) -> int:
        return self.rounds + WARM_UP

    # --- Flowerbed ----------------------------------------------------------

    def flowerbed(self) -> list[Round]:
        with self.trained() as (_, federation):
            return [_gateway_round(one) for one in federation["rounds"]]

    @contextmanager
    def trained(self) -> Iterator[tuple[Field, dict[str, Any]]]:
        """A stack of its own and the federation that it has completed."""
        with running_stack(self.scratch / "stack") as stack:
            field = Field(stack, Api(stack.gateway_url, stack.api_token))
            homes = self.scratch / "clients"
            for ready in hospitals(field, self.data, homes, list(self.sites)):
                train = {**TRAIN, "seed": self.seed}
                identity = ready.submit(hospital(num_rounds=self.n_rounds, train=train))
                yield ready, self._completed(ready, identity)

    def _completed(self, field: Field, federation_id: str) -> dict[str, Any]:
        """What the gateway says when it has heard of all rounds."""
        end = time.monotonic() + LONGEST * self.n_rounds
        while time.monotonic() < end:
            found: dict[str, Any] = field.api.federation(federation_id)
            if found["status"] in ENDED:
                assert found["status"] == "completed", found["reason"]
                if all(one["evaluate_seconds"] is not None for one in found["rounds"]):
                    return found
            time.sleep(LOOK_EVERY)
        raise AssertionError(f"federation {federation_id} did not end")

    # --- Flower -------------------------------------------------------------

    def flower(self, setup: Setup) -> list[Round]:
        root = Path(tempfile.mkdtemp(prefix="flower-"))  # Ray's sockets want a short path
        flower = Flower(root, setup)
        try:
            flower.start()
            config = {name.replace("_", "-"): value for name, value in TRAIN.items()}
            told: dict[str, Value] = {
                "num-server-rounds": self.n_rounds,
                "seed": self.seed,
                "sites": ":".join(str(self.data / name) for name in self.sites),
                "log": str(root / "rounds.jsonl"),
            }
            run = Run(flower, APP, {**config, **told})
            until(partial(_is_over, run), LONGEST * self.n_rounds, flower, LOOK_EVERY)
            status, sub_status, details = run.status()
            assert sub_status == "completed", (status, sub_status, details, flower.logs())
            return flower_rounds(run.told())
        finally:
            flower.stop()
            shutil.rmtree(root, ignore_errors=True)


def _gateway_round(one: Mapping[str, Any]) -> Round:
    total, in_apps, overhead = times(dict(one))
    assert total is not None
    assert in_apps is not None
    assert overhead is not None
    assert one["train_updates"]["accepted"] == one["evaluate_updates"]["accepted"] == N_CLIENTS
    return Round(number=one["round_number"], total=total, in_apps=in_apps, overhead=overhead)


def _is_over(run: Run) -> bool:
    return run.status()[0] in ("finished", "gone")


def flower_rounds(told: Sequence[Mapping[str, Any]]) -> list[Round]:
    """The app's lines as rounds; every client must have answered in each exchange."""
    rounds = []
    for number in sorted({one["round"] for one in told}):
        mine = [one for one in told if one["round"] == number]
        (began,) = (one["at"] for one in mine if one["what"] == "began")
        (ended,) = (one["at"] for one in mine if one["what"] == "ended")
        in_apps = _slowest(mine, "train") + _slowest(mine, "evaluate")
        total = ended - began
        overhead = max(0.0, total - in_apps)
        rounds.append(Round(number=number, total=total, in_apps=in_apps, overhead=overhead))
    return rounds


def _slowest(told: Sequence[Mapping[str, Any]], what: str) -> float:
    seconds = [float(one["seconds"]) for one in told if one["what"] == what]
    assert len(seconds) == N_CLIENTS, f"{len(seconds)} clients answered in {what}"
    return max(seconds)


# --- what is shown ----------------------------------------------------------


def measure(bench: Bench, names: Sequence[str]) -> Iterator[tuple[str, list[Round]]]:
    for name in names:
        setup = None if name == "flowerbed" else (SETUPS | OTHERS)[name]
        rounds = bench.flowerbed() if setup is None else bench.flower(setup)
        for one in rounds:
            print(json.dumps({"setup": name, **asdict(one)}), file=sys.stderr)
        load = os.getloadavg()[0]
        print(json.dumps({"setup": name, "load": load}), file=sys.stderr, flush=True)
        yield name, [one for one in rounds if one.number > WARM_UP]


def table(found: Mapping[str, Sequence[Round]]) -> str:
    ours = found.get("flowerbed")
    lines = [
        "| setup | rounds measured | overhead of a round, s (median) | least to most"
        " | in the apps, s (median) | times Flowerbed's |",
        "|---|---|---|---|---|---|",
    ]
    for name, rounds in found.items():
        overhead = [one.overhead for one in rounds]
        in_apps = statistics.median(one.in_apps for one in rounds)
        times_ours = f"{overhead_of(rounds) / overhead_of(ours):.1f}" if ours else "-"
        lines.append(
            f"| {name} | {len(rounds)} | {overhead_of(rounds):.3f}"
            f" | {min(overhead):.3f} to {max(overhead):.3f} | {in_apps:.3f} | {times_ours} |"
        )
    return "\n".join(lines)


def overhead_of(rounds: Sequence[Round]) -> float:
    return statistics.median(one.overhead for one in rounds)


def targets(found: Mapping[str, Sequence[Round]]) -> Iterator[str]:
    if "flowerbed" not in found:
        return
    ours = overhead_of(found["flowerbed"])
    for name in ("deployment", "fastest"):
        if name in found:
            held = "yes" if 20 * ours <= overhead_of(found[name]) else "NO"
            yield f"at most 1/20 of Flower's {name}: {held}"
    if "simulation" in found:
        held = "yes" if ours < overhead_of(found["simulation"]) else "NO"
        yield f"below Flower's simulation: {held}"


@contextmanager
def prepared(rounds: int, seed: int) -> Iterator[Bench]:
    """The sites' rows and a place for everything else, gone afterwards."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all of it is stopped
    scratch = Path(tempfile.mkdtemp(prefix="flowerbed-rounds-"))
    scratch.chmod(0o755)
    try:
        described = prepare("hospital", scratch / "data", seed)
        sites = tuple(site["name"] for site in described["sites"])
        yield Bench(data=scratch / "data", scratch=scratch, sites=sites, rounds=rounds, seed=seed)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    with prepared(options.rounds, options.seed) as bench:
        found = dict(measure(bench, list(OTHERS) if options.try_settings else options.only))
    print(f"{os.cpu_count()} cores, seed {options.seed}, the first {WARM_UP} rounds left out")
    print(table(found))
    print("\n".join(targets(found)))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What a round costs beside its training.")
    parser.add_argument("--rounds", type=int, default=10, help="measured, after the warm-up")
    parser.add_argument("--seed", type=int, default=7)
    names = ["flowerbed", *SETUPS]
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=names, help=",".join(names)
    )
    parser.add_argument(
        "--try-settings", action="store_true", help="of Flower: which ones are the fastest?"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
