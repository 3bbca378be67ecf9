"""The same kills against stock Flower of the pinned version, to have something to compare with.

    python -m scripts.bench.recovery_flower --kills 5 --seed 1

One SuperLink with a database file, four SuperNodes, one run of four rounds of the app beside this
file (`flower_app/`: FedAvg as it comes, two seconds of training). In the second round one process
gets SIGKILL. SuperLink and SuperNodes are started again after a second with the same arguments,
as systemd would; nobody starts a ServerApp or a ClientApp again but Flower itself.

For each kill: how the run ended within the time limit, after how long anything was heard of it,
and how many of the killed round's four answers counted. Rounds have the default deadline of a
Flowerbed round, 600 s; Flower's own default is 3600 s.
"""

import argparse
import json
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from scripts.bench.flower_peer import READY, Flower, Run, Setup, until

APP = Path(__file__).parent / "flower_app"
N_NODES, ROUNDS, KILLED_ROUND = 4, 4, 2
VICTIMS = ("superlink", "serverapp", "supernode", "clientapp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`ended`: what the run's status is at last, or `not ended`. Seconds count from the kill.

    `heard_after`: until the next round began, or the run's end was known.
    `n_answers`: of the killed round; None when it never ended.
    """

    victim: str
    ended: str
    heard_after: float | None
    n_answers: int | None
    n_rounds: int
    detail: str


def find(flower: Flower, kind: str, dice: random.Random) -> psutil.Process | None:
    """One process of that kind; None while there is none."""
    if kind == "superlink":
        return psutil.Process(flower.processes["superlink"].pid)
    number = dice.randint(1, N_NODES)
    if kind == "supernode":
        return psutil.Process(flower.processes[f"supernode-{number}"].pid)
    wanted = f"flwr-{kind}"
    found = [one for one in flower.tree() if wanted in " ".join(_command(one))]
    return dice.choice(found) if found else None


def trial(kind: str, dice: random.Random, isolation: str, limit: float) -> Outcome:
    root = Path(tempfile.mkdtemp(prefix="flower-recovery-"))
    flower = Flower(root, Setup(nodes=({},) * N_NODES, isolation=isolation))
    try:
        flower.start()
        run = Run(flower, APP, {"log": str(root / "rounds.jsonl"), "num-server-rounds": ROUNDS})
        until(lambda: _began(run, KILLED_ROUND), READY * 2, flower)
        time.sleep(dice.uniform(0.0, 2.0))
        victim = find(flower, kind, dice)
        end = time.monotonic() + READY
        while victim is None and time.monotonic() < end:
            time.sleep(0.02)  # a ClientApp lives for one message
            victim = find(flower, kind, dice)
        if victim is None:
            raise AssertionError(f"no {kind} runs")
        at = time.time()
        victim.kill()
        return _watched(kind, run, flower, at, limit)
    finally:
        flower.stop()
        shutil.rmtree(root, ignore_errors=True)


def _watched(kind: str, run: Run, flower: Flower, at: float, limit: float) -> Outcome:
    ended, detail, heard = "not ended", "", None
    while time.time() < at + limit:
        flower.tend()
        began = [one["at"] for one in run.told() if one["what"] == "began" and one["at"] > at]
        if began and heard is None:
            heard = began[0] - at
        status, sub_status, details = run.status()
        if status in ("finished", "gone"):
            ended, detail = sub_status or status, details
            heard = time.time() - at if heard is None else heard
            break
        time.sleep(0.25)
    rounds = [one for one in run.told() if one["what"] == "ended"]
    killed = [one["n"] for one in rounds if one["round"] == KILLED_ROUND]
    return Outcome(
        victim=kind,
        ended=ended,
        heard_after=heard and round(heard, 1),
        n_answers=killed[0] if killed else None,
        n_rounds=len(rounds),
        detail=detail[:120],
    )


def table(outcomes: Sequence[Outcome]) -> str:
    lines = [
        "| killed | trials | run completed | run failed | not ended in time"
        " | answers of the round | heard of, s (p50 / max) |",
        "|---|---|---|---|---|---|---|",
    ]
    for victim in dict.fromkeys(one.victim for one in outcomes):
        mine = [one for one in outcomes if one.victim == victim]
        heard = [one.heard_after for one in mine if one.heard_after is not None]
        told = f"{statistics.median(heard):.0f} / {max(heard):.0f}" if heard else "never"
        completed = sum(one.ended == "completed" for one in mine)
        open_ = sum(one.ended == "not ended" for one in mine)
        answers = ", ".join("-" if one.n_answers is None else str(one.n_answers) for one in mine)
        lines.append(
            f"| {victim} | {len(mine)} | {completed} | {len(mine) - completed - open_} | {open_}"
            f" | {answers} | {told} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What a kill does to a run of stock Flower.")
    parser.add_argument("--kills", type=int, default=5, help="of each process")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=float, default=240.0, help="seconds for each trial")
    parser.add_argument("--isolation", choices=("subprocess", "process"), default="subprocess")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(VICTIMS))
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    dice = random.Random(f"{options.seed} flower")
    outcomes = []
    for _ in range(options.kills):
        for victim in options.only:
            outcome = trial(victim, dice, options.isolation, options.limit)
            outcomes.append(outcome)
            print(json.dumps(asdict(outcome)), file=sys.stderr, flush=True)
    print(f"isolation {options.isolation}, limit {options.limit:g} s, seed {options.seed}")
    print(table(outcomes))
    return 0


def _began(run: Run, number: int) -> bool:
    return any(one["what"] == "began" and one["round"] == number for one in run.told())


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


if __name__ == "__main__":
    sys.exit(main())
