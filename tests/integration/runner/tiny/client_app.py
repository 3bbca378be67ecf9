"""A Flower app without torch that does what an order's config tells it to, for tests."""

import logging
import os
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.logger import log
from opentelemetry import trace

app = ClientApp()
tracer = trace.get_tracer(__name__)


@app.train()
def train(message: Message, context: Context) -> Message:
    config: dict[str, Any] = dict(message.content.config_records["config"])
    data = Path(str(context.node_config["data-path"]))
    n_examples = len((data / "rows.txt").read_text().split())
    print("the app prints to standard output")
    for epoch in range(int(config.get("epochs", 0))):
        with tracer.start_as_current_span("epoch", attributes={"epoch": epoch + 1, "of": "ward 7"}):
            time.sleep(0.001)
    _behave(config, data, context.node_config)
    calls = _count(context)
    if config.get("behave") == "forget-and-raise":
        context.state.clear()
        raise ValueError("forgot everything")
    shift = np.full((), config["seed"], dtype=np.float32)
    arrays = {
        name: Array(np.asarray(array.numpy() + shift, dtype=np.float32))
        for name, array in message.content.array_records["arrays"].items()
    }
    metrics: dict[str, Any] = {
        "num-examples": n_examples, "train-loss": random.random(), "calls": calls,
        "round": int(config["server-round"]),
    }  # fmt: skip
    if config.get("behave") == "nan":
        metrics["train-loss"] = float("nan")
    if config.get("behave") == "no-examples":
        del metrics["num-examples"]
    if "tokens" in config:
        metrics["num-tokens"] = int(config["tokens"])
    if config.get("behave") == "tells-entropy":
        metrics["label-entropy"] = 0.5
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    metrics = MetricRecord({"num-examples": 2, "eval-loss": 0.5})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _count(context: Context) -> int:
    """How often this worker has trained, kept where an app keeps what it must remember."""
    before: Mapping[str, Any] = context.state.config_records.get("calls", ConfigRecord({"n": 0}))
    context.state.config_records["calls"] = ConfigRecord({"n": int(before["n"]) + 1})
    return int(before["n"]) + 1


def _behave(config: Mapping[str, Any], data: Path, node: Mapping[str, Any]) -> None:
    match config.get("behave"):
        case "log":
            logging.getLogger("tiny").info("read %s", data / "rows.txt")
            log(logging.WARNING, "flower's own logger, for anna@ward.example")
            os.write(1, b"from below Python\n")
        case "flood":
            print("x\n" * 20_000, flush=True)
        case "raise":
            raise ValueError(f"cannot read {data}/rows.txt of 'ward 7'")
        case "die":
            os._exit(3)
        case "keep-and-die" if not (kept := _kept(node)).exists():
            kept.write_text("as far as this")
            os._exit(3)
        case "keep-and-block":
            _kept(node).write_text("as far as this")
            _block(config)
        case "block":
            _block(config)


def _kept(node: Mapping[str, Any]) -> Path:
    return Path(str(node["checkpoint-dir"])) / "epoch-5.txt"


def _block(config: Mapping[str, Any]) -> None:
    """Until the file that the test holds is gone."""
    block = Path(str(config["block"]))
    block.with_suffix(".pid").write_text(str(os.getpid()))
    while block.exists():
        time.sleep(0.01)
