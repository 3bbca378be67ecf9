"""Robust strategies on many updates of ten million float32: ours, Flower's and ByzFL's.

    python -m scripts.bench.robust --clients 50

Each rule runs in a process of its own: how long it takes, how far the peak of its memory lies above
that of the process before the updates were there, and what it gives. Flower's and ByzFL's have
all updates in memory before the clock starts; ours reads them from files in the page cache, where a
download has just put them, and writes the checkpoint.

Updates are a thousandth of the weights' size, as near convergence. So the distances of Krum are
compared with those of whole differences in float64, for some pairs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from flowerbed.aggregator.comparing import squared_distances
from flowerbed.aggregator.fold import InTime
from flowerbed.aggregator.robust import rule_of
from flowerbed.aggregator.tensors import TensorFile
from flowerbed.contracts.strategy import Strategy
from scripts.bench.aggregation import peak_memory

SIZE = 1e-3
N_PAIRS = 40
BY = ("ours", "flwr", "byzfl")


def rules(n: int) -> dict[str, dict[str, Any]]:
    """A fifth of the clients may be malicious."""
    f = n // 5
    return {
        "fedmedian": {},
        "fedtrimmedavg": {"beta": 0.2},
        "krum": {"num_malicious_nodes": f},
        "multikrum": {"num_malicious_nodes": f, "num_nodes_to_select": n - f},
        "bulyan": {"num_malicious_nodes": f},
    }


# --- one rule by one library, in a process of its own -------------------------------------------


def ours(name: str, params: dict[str, Any], paths: Sequence[Path], base: Path) -> Callable[[], Any]:
    rule, out = rule_of(Strategy(name=name, params=params)), base.parent / f"{name}.safetensors"
    assert rule is not None

    def work() -> Any:
        with ExitStack() as files:
            first = files.enter_context(TensorFile(base))
            opened = [InTime(files.enter_context(TensorFile(path)), 1) for path in paths]
            rule.write(out, first, opened)
        return out

    return work


def by_flower(
    name: str, params: dict[str, Any], paths: Sequence[Path], base: Path
) -> Callable[[], Any]:
    from tests.support import flower

    strategy = flower.STRATEGIES[name](**params)
    replies = flower.replies(map(load_file, paths), [1] * len(paths))

    def work() -> Any:
        record, _ = strategy.aggregate_train(1, replies)
        assert record is not None
        return record["w"].numpy()

    return work


def by_byzfl(
    name: str, params: dict[str, Any], paths: Sequence[Path], base: Path
) -> Callable[[], Any]:
    import torch

    from tests.support.byzfl import aggregators

    f = len(paths) // 5
    rule = {
        "fedmedian": lambda: aggregators.Median(),
        "fedtrimmedavg": lambda: aggregators.TrMean(f=f),
        "krum": lambda: aggregators.Krum(f=f),
        "multikrum": lambda: aggregators.MultiKrum(f=f),
    }[name]()
    vectors = torch.empty((len(paths), load_file(base)["w"].size))
    for row, path in zip(vectors, paths, strict=True):
        row.copy_(torch.from_numpy(load_file(path)["w"]))
    return lambda: rule(vectors).numpy()


def worker(name: str, by: str, n: int, folder: Path) -> None:
    paths, before = [folder / str(place) for place in range(n)], peak_memory()
    method = {"ours": ours, "flwr": by_flower, "byzfl": by_byzfl}[by]
    work = method(name, rules(n)[name], paths, folder / "base")
    began = time.perf_counter()
    found = work()
    seconds, peak = time.perf_counter() - began, peak_memory() - before
    found = load_file(found)["w"] if isinstance(found, Path) else found
    np.save(folder / f"{name}-{by}.npy", found)
    print(json.dumps({"seconds": seconds, "mebibytes": peak}))


# --- all of them ---------------------------------------------------------------------------------


def measured(name: str, by: str, n: int, folder: Path) -> dict[str, float] | None:
    command = [sys.executable, "-m", "scripts.bench.robust", "--worker", f"{name}:{by}"]
    command += ["--clients", str(n), "--folder", str(folder)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    if ran.returncode:
        print(f"{name} by {by}: {ran.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def differs(folder: Path, name: str, by: str) -> float:
    """By how much from ours at the most, in parts of an update's typical step."""
    one, other = (np.load(folder / f"{name}-{who}.npy", mmap_mode="r") for who in ("ours", by))
    return float(np.max(np.abs(one - other))) / SIZE


def show(n: int, repeats: int, folder: Path) -> None:
    print("| strategy | by | seconds | peak memory, MiB | from ours by, in steps |")
    print("|---|---|---|---|---|")
    for name in rules(n):
        for by in BY if name != "bulyan" else BY[:2]:
            runs = [one for _ in range(repeats) if (one := measured(name, by, n, folder))]
            if runs:
                seconds = sorted(one["seconds"] for one in runs)
                peak = max(one["mebibytes"] for one in runs)
                apart = "" if by == "ours" else f"{differs(folder, name, by):.1e}"
                print(
                    f"| {name} | {by} | {seconds[len(seconds) // 2]:.2f} | {peak:,.0f} | {apart} |",
                    flush=True,
                )


def show_distances(n: int, folder: Path) -> None:
    """The greatest relative error of squared distances, ours and Flower's, for some pairs."""
    from flwr.serverapp.strategy.multikrum import compute_distances

    from tests.support import flower

    with ExitStack() as files:
        base = files.enter_context(TensorFile(folder / "base"))
        found = squared_distances(
            [files.enter_context(TensorFile(folder / str(place))) for place in range(n)], base
        )
    theirs = compute_distances([flower.arrays(load_file(folder / str(one))) for one in range(n)])
    errors: list[list[float]] = []
    for _ in range(N_PAIRS):
        pair = np.random.default_rng(len(errors)).choice(n, 2, replace=False)
        one, other = (load_file(folder / str(place))["w"].astype(np.float64) for place in pair)
        exact = float(np.square(one - other).sum())
        errors.append([abs(them[tuple(pair)] - exact) / exact for them in (found, theirs)])
    worst = np.max(errors, axis=0)
    print(f"\nsquared distances, {N_PAIRS} pairs: ours within {worst[0]:.1e}, flwr {worst[1]:.1e}")


def prepare(n: int, elements: int, folder: Path) -> None:
    base = np.random.default_rng(0).standard_normal(elements, np.float32)
    save_file({"w": base}, folder / "base")
    for place in range(n):
        step = np.random.default_rng(1 + place).standard_normal(elements, np.float32)
        save_file({"w": base + np.float32(SIZE) * step}, folder / str(place))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--elements", type=int, default=10_000_000)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        name, _, by = options.worker.partition(":")
        worker(name, by, options.clients, options.folder)
        return 0
    with tempfile.TemporaryDirectory(prefix="flowerbed-robust-") as made:
        folder = Path(made)
        prepare(options.clients, options.elements, folder)
        show(options.clients, options.repeats, folder)
        show_distances(options.clients, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
