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
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

APP = Path(__file__).parent / "flower_app"
BIN = Path(sys.executable).parent
N_NODES, ROUNDS, KILLED_ROUND = 4, 4, 2
VICTIMS = ("superlink", "serverapp", "supernode", "clientapp")
RESTARTED_AFTER = 1.0
READY = 90.0


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


@dataclass(slots=True)
class Flower:
    """All of its processes, each in a group of its own."""

    root: Path
    isolation: str
    port: int = 0
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    commands: dict[str, list[str]] = field(default_factory=dict)

    def start(self) -> None:
        self.port, *node_ports = _free_ports(N_NODES + 1)
        self.commands["superlink"] = [
            str(BIN / "flower-superlink"), "--insecure", "--port", str(self.port),
            "--database", str(self.root / "state.db"), "--isolation", self.isolation,
            "--disable-runtime-dependency-installation",
        ]  # fmt: skip
        if self.isolation == "process":
            self.commands["superexec"] = [
                str(BIN / "flower-superexec"), "--insecure",
                "--runtime-api-address", f"127.0.0.1:{self.port}",
            ]  # fmt: skip
        for number, port in enumerate(node_ports, 1):
            self.commands[f"supernode-{number}"] = [
                str(BIN / "flower-supernode"), "--insecure", "--port", str(port),
                "--superlink", f"127.0.0.1:{self.port}",
            ]  # fmt: skip
        for name in self.commands:
            self.spawn(name)
            if name == "superlink":
                _until_listening(self.port)

    def spawn(self, name: str) -> None:
        environment = {
            **os.environ,
            "FLWR_HOME": str(self.root / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PATH": f"{BIN}:{os.environ.get('PATH', '')}",
        }
        with (self.root / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self.commands[name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def tend(self) -> None:
        """Start again what ended by itself or was killed, after a second."""
        for name, process in list(self.processes.items()):
            if process.poll() is not None:
                time.sleep(RESTARTED_AFTER)
                self.spawn(name)

    def victim(self, kind: str, dice: random.Random) -> psutil.Process | None:
        if kind == "superlink":
            return psutil.Process(self.processes["superlink"].pid)
        number = dice.randint(1, N_NODES)
        if kind == "supernode":
            return psutil.Process(self.processes[f"supernode-{number}"].pid)
        wanted = f"flwr-{kind}"
        found = [one for one in self.tree() if wanted in " ".join(_command(one))]
        return dice.choice(found) if found else None

    def tree(self) -> list[psutil.Process]:
        """Everything that was started for this trial, orphans too: they know our directory."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("FLWR_HOME") == str(self.root / "home"):
                    found.append(process)
        return found

    def stop(self) -> None:
        for process in self.tree():
            with suppress(psutil.Error):
                process.kill()
        for started in self.processes.values():
            started.wait(10)


class Run:
    """One run, over Flower's control API."""

    def __init__(self, flower: Flower, log: Path) -> None:
        from flwr.supercore.control import ControlHttpClient

        self._log = log
        self._client = ControlHttpClient.from_server_address(
            f"127.0.0.1:{flower.port}", insecure=True, root_certificates=None, interceptors=[]
        )
        self.id = self._start()

    def _start(self) -> int:
        from flwr.cli.build import build_fab_from_disk
        from flwr.common.serde import fab_to_proto, user_config_to_proto
        from flwr.proto import control_pb2 as pb
        from flwr.supercore.fab import Fab

        content = build_fab_from_disk(APP)
        fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
        config: dict[str, bool | float | int | str] = {
            "log": str(self._log),
            "num-server-rounds": ROUNDS,
        }
        request = pb.StartRunRequest(
            fab=fab_to_proto(fab), override_config=user_config_to_proto(config), federation=""
        )
        return int(self._client.StartRun(request).run_id)

    def status(self) -> tuple[str, str, str]:
        """Status, sub-status and details; empty while the SuperLink does not answer."""
        from flwr.proto import control_pb2 as pb

        try:
            listed = self._client.ListRuns(pb.ListRunsRequest(run_id=self.id))
        except Exception:  # whatever its client raises while the server is away
            return "", "", ""
        if self.id not in listed.run_dict:
            return "gone", "", "the SuperLink does not know the run"
        found = listed.run_dict[self.id].status
        return found.status, found.sub_status, found.details

    def rounds(self) -> list[dict[str, Any]]:
        if not self._log.exists():
            return []
        return [json.loads(line) for line in self._log.read_text().splitlines()]


def trial(kind: str, dice: random.Random, isolation: str, limit: float) -> Outcome:
    root = Path(tempfile.mkdtemp(prefix="flower-recovery-"))
    flower = Flower(root, isolation)
    try:
        flower.start()
        run = Run(flower, root / "rounds.jsonl")
        _until(lambda: _began(run, KILLED_ROUND), READY * 2, flower)
        time.sleep(dice.uniform(0.0, 2.0))
        victim = flower.victim(kind, dice)
        end = time.monotonic() + READY
        while victim is None and time.monotonic() < end:
            time.sleep(0.02)  # a ClientApp lives for one message
            victim = flower.victim(kind, dice)
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
        began = [one["at"] for one in run.rounds() if one["what"] == "began" and one["at"] > at]
        if began and heard is None:
            heard = began[0] - at
        status, sub_status, details = run.status()
        if status in ("finished", "gone"):
            ended, detail = sub_status or status, details
            heard = time.time() - at if heard is None else heard
            break
        time.sleep(0.25)
    rounds = [one for one in run.rounds() if one["what"] == "ended"]
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
    return any(one["what"] == "began" and one["round"] == number for one in run.rounds())


def _until(look: Any, seconds: float, flower: Flower) -> None:
    end = time.monotonic() + seconds
    while not look():
        if time.monotonic() > end:
            logs = {path.name: path.read_text()[-500:] for path in flower.root.glob("*.log")}
            raise AssertionError(f"the run did not come so far within {seconds:g} s: {logs}")
        time.sleep(0.05)


def _until_listening(port: int) -> None:
    end = time.monotonic() + READY
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens on port {port}")


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


if __name__ == "__main__":
    sys.exit(main())
