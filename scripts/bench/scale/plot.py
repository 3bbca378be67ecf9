"""The growth curve as a figure: latency, processor and memory over the number of runners."""

from collections.abc import Sequence
from pathlib import Path

from scripts.bench.scale.growth import Size
from scripts.bench.scale.tables import MIB, percentile

CALLS = {
    "heartbeat": "heartbeat",
    "work poll, late": "poll for work, late",
    "lease poll, late": "poll for leases, late",
}


def draw(sizes: Sequence[Size], path: Path) -> None:
    """Write the figure; its format follows from the file's name."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    sizes = [size for size in sizes if size.runners]
    runners = [size.runners for size in sizes]
    figure, (latency, processor, memory) = pyplot.subplots(1, 3, figsize=(13, 4))
    for kind, label in CALLS.items():
        found = [percentile(size.found.seconds.get(kind, []), 0.99) for size in sizes]
        latency.plot(runners, [1000 * (one or 0) for one in found], marker="o", label=label)
    latency.axhline(100, color="grey", linestyle="--", linewidth=1)
    latency.set(title="p99 of an answer, ms", yscale="log")
    every = [100 * sum(size.used.values()) / size.window for size in sizes]
    processor.plot(runners, every, marker="o", label="control plane")
    own = [100 * size.generator / size.window for size in sizes]
    processor.plot(runners, own, marker="o", linestyle=":", label="simulated runners")
    processor.set(title="processor, % of one core", yscale="log")
    held = [sum(size.memory.values()) / MIB for size in sizes]
    memory.plot(runners, held, marker="o", label="control plane")
    memory.set(title="memory (PSS), MiB")
    for axes in (latency, processor, memory):
        axes.set(xscale="log", xlabel="runners")
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
