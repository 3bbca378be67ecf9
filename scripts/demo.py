"""The main job, as its users do it: four sites train one model, and none shares its data.

    python -m scripts.demo --app hospital        (or: make demo)

Sets up a stack of its own in .state/demo, invites and starts four runners, submits a spec, shows
the rounds, and then checks everything it says. Exit code 0 only if all of it holds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from flowerbed.cli.api import Api
from flowerbed.cli.live import watch
from flowerbed.embedded.stack import Stack
from flowerbed.runner.dataset import Dataset
from scripts.demo_report import Report
from scripts.prepare_data import prepare

ROOT = Path(__file__).resolve().parent.parent
FLOWERBED = str(Path(sys.executable).with_name("flowerbed"))
DATA_SEED = 7
LONGEST = 900.0
SEEDS = {"hospital": 5, "vision": 2}
"""For the comparison: a seed of hospital takes 3 s to train four ways, one of vision 30 s."""
# A pipe has no width of its own, and a wrapped table is hard to read.
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 110)


def step(text: str) -> None:
    console.print(f"\n[bold green]•[/] [bold]{text}[/]")


def flowerbed(*arguments: str, state: Path, shown: str | None = None, key: str = "") -> str:
    """Run the command line as a person would; its output, or an end with what it said."""
    if shown is not None:
        console.print(f"  [dim]$ flowerbed {shown}[/]")
    environment = {**os.environ, "FLOWERBED_STATE_DIR": str(state)}
    done = subprocess.run(
        [FLOWERBED, *arguments], env=environment, input=key, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise SystemExit(f"flowerbed {arguments[0]} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def start_stack(state: Path) -> Stack:
    step("Start Flowerbed: Postgres, NATS JetStream, S3, a TLS front and five services")
    began = time.monotonic()
    flowerbed("up", state=state, shown=f"up --state-dir {state}")
    console.print(f"  ready after {time.monotonic() - began:.1f} s")
    return Stack(state)


def start_sites(app: str, data: Path, state: Path) -> dict[str, Path]:
    """A runner for every site: a process of its own, with a state and a data folder of its own."""
    step("Prepare each site's folder, invite the sites and start a runner at each")
    described = prepare(app, data, DATA_SEED)
    sites = {site["name"]: data / site["name"] for site in described["sites"]}
    homes = {name: state / "clients" / app / name for name in sites}
    for site in described["sites"]:
        rows = f"{site['train']['rows']} rows to train on, {site['test']['rows']} held out"
        console.print(f"  {site['name']:<16} {rows}")
    start_runners(app, {sites[name]: home for name, home in homes.items()}, state)
    return sites


def start_runners(app: str, homes: Mapping[Path, Path], state: Path) -> None:
    """A process for each data folder, with its own state; returns when all are there."""
    starting = {folder: _start_runner(app, folder, homes[folder], state) for folder in homes}
    console.print("  [dim]$ flowerbed client invite --tags …[/], at each site:")
    console.print("  [dim]$ flowerbed client start --dataset local:… --invite …[/]")
    for folder, process in starting.items():
        _, errors = process.communicate(timeout=120)
        if process.returncode != 0:
            raise SystemExit(f"the runner of {folder.name} did not start: {errors}")


def _start_runner(app: str, folder: Path, home: Path, state: Path) -> "subprocess.Popen[str]":
    """Enrolled before, it needs no invite. The key goes through a pipe: arguments are public."""
    command = [FLOWERBED, "client", "start", "--dataset", f"local:{folder}"]
    command += ["--state-dir", str(home)]
    invite = ""
    if not (home / "identity.json").exists():
        invite = flowerbed("client", "invite", "--tags", app, state=state)
        command += ["--invite", "-"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(invite)
    process.stdin.flush()
    return process


def spec_of(app: str, sites: dict[str, Path]) -> dict[str, Any]:
    """The example, bound to these very datasets by their digests."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "examples" / f"{app}.yaml").read_text())
    document["spec"]["dataset_spec"]["hashes"] = hashes_of(sites.values())
    return document


def hashes_of(folders: Iterable[Path]) -> list[str]:
    """The datasets' digests, as a spec names them."""
    return sorted(Dataset.open(f"local:{folder}").reference().sha256 for folder in folders)


def run_federation(api: Api, document: dict[str, Any]) -> dict[str, Any]:
    step("Submit the FederationSpec and watch it train")
    spec = document["spec"]
    told = {key: spec[key] for key in ("app", "strategy", "num_rounds", "train")}
    console.print(f"  [dim]{json.dumps(told)}[/]")
    key = f"demo-{time.time_ns()}"
    submitted = api.submit(json.dumps(document).encode(), key)
    console.print(f"  federation {submitted['federation_id']}\n")
    return watch(api, submitted["federation_id"], console=console, timeout=LONGEST)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train one model over four sites, and prove it.")
    parser.add_argument("--app", choices=["hospital", "vision"], default="hospital")
    parser.add_argument("--state-dir", type=Path, default=ROOT / ".state" / "demo")
    parser.add_argument("--seeds", type=int, help="how many seeds for the spread of the figures")
    parser.add_argument("--stop", action="store_true", help="only stop what runs")
    options = parser.parse_args(arguments)
    state = options.state_dir.absolute()
    if options.stop:
        stop(state)
        return 0
    data = state / "data" / options.app
    began = time.monotonic()
    stack = start_stack(state)
    sites = start_sites(options.app, data, state)
    api = Api(stack.gateway_url, stack.api_token)
    document = spec_of(options.app, sites)
    federation = run_federation(api, document)
    if federation["status"] != "completed":
        console.print(f"[red]the federation {federation['status']}: {federation['reason']}[/]")
        return 1
    with tempfile.TemporaryDirectory(prefix="flowerbed-demo-") as scratch:
        report = Report(stack, api, federation, data, document, Path(scratch), console)
        is_good = report.show(options.seeds or SEEDS[options.app])
    _say_where_everything_is(stack, state, time.monotonic() - began)
    return 0 if is_good else 1


def _say_where_everything_is(stack: Stack, state: Path, seconds: float) -> None:
    step("What you can open, and how to stop it")
    where = f"--state-dir {state}"
    console.print(f"  dashboard {stack.gateway_url}/   (token: {stack.api_token_file})")
    console.print(f"  S3        {stack.s3.endpoint}   bucket {stack.s3.bucket}")
    console.print(f"  events    flowerbed federation events FEDERATION {where}")
    console.print(f"  status    flowerbed status {where}")
    console.print("  stop      make demo-stop")
    console.print("            (flowerbed is .venv/bin/flowerbed)")
    console.print(f"\n  all of this took {seconds:.0f} s")


def stop(state: Path) -> None:
    """The runners and the stack; their data stay."""
    for home in sorted((state / "clients").glob("*/*")):
        flowerbed("client", "stop", "--state-dir", str(home), state=state)
    console.print(flowerbed("down", state=state, shown=f"down --state-dir {state}"))


if __name__ == "__main__":
    sys.exit(main())
