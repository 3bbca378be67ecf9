"""Have a Flower strategy of somebody's own aggregate one exchange, in a process of its own:

python -m flowerbed.flower_apps.aggregate_own --job FILE.json

The job says all that the strategy is told. For a training exchange its `configure_train` is called
with the round's base, then its `aggregate_train` with the replies; for an evaluation
`configure_evaluate` and `aggregate_evaluate`. What the strategy keeps in its attributes goes from
round to round in a file; only this process, which runs the strategy's code anyway, unpickles it.
"""

import argparse
import inspect
import json
import os
import pickle
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy
from flwr.supercore.task_identity import TaskIdentity
from safetensors.numpy import load_file, save_file

from flowerbed.flower_apps.forking import die_with
from flowerbed.flower_apps.messages import TTL_SECONDS, read_arrays, save_arrays
from flowerbed.flower_apps.registry import load, load_from
from flowerbed.flower_apps.seeded import seed_all

Config = Mapping[str, bool | float | int | str]
FIRST_NODE = 2
"""The node id of place 0; 1 is Flower's own."""
STATE = "state"
_CODE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, type)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class NoStrategy(SystemExit):
    """What the app gave cannot be driven; the message is for its author."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`order`: the config that the clients were sent. `config`: the app's run config.

    `replies`: of each its place, number of examples, metrics, and the file of its arrays.
    `state`, `kept`: the files of what the strategy kept of the round before, and keeps after it.
    `said`: the file for its metrics.
    """

    reference: str
    folder: str | None
    params: dict[str, Any]
    config: dict[str, Any]
    order: dict[str, Any]
    seed: int
    exchange: Literal["train", "evaluate"]
    round_number: int
    base: str
    replies: list[dict[str, Any]]
    state: str | None
    arrays: str
    kept: str
    said: str


class Seats:
    """As much of a Grid as a strategy looks at: who takes part. Nothing is sent through it."""

    def __init__(self, node_ids: Sequence[int]) -> None:
        self._node_ids = list(node_ids)

    def get_node_ids(self) -> list[int]:
        return list(self._node_ids)

    def __getattr__(self, name: str) -> Any:
        raise NoStrategy(f"the strategy asks its grid for {name}: rounds are not its to send")


def run(job: Job) -> None:
    TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1
    strategy = made(job)
    new, forgets = kept(strategy), False
    if job.state is not None:
        restore(strategy, load_file(job.state)[STATE].tobytes())
    if job.exchange == "evaluate":
        metrics, forgets = _evaluated(strategy, job)
    else:
        arrays, metrics = _trained(strategy, job)
        if arrays is not None:
            save_arrays(arrays, Path(job.arrays))
        if (now := kept(strategy)) != new:
            save_file({STATE: np.frombuffer(now, np.uint8)}, job.kept)
    said = {"metrics": _numbers(metrics), "forgets": forgets}
    Path(job.said).write_text(json.dumps(said))


def made(job: Job) -> Strategy:
    """The strategy as it is before its first round: an instance, or what a class or factory
    gives for the params. A factory whose argument no param names is given the run config."""
    seed_all(job.seed)
    found = (
        load(job.reference) if job.folder is None else load_from(Path(job.folder), job.reference)
    )
    seed_all(job.seed)  # the import may have used some, or brought torch
    if isinstance(found, Strategy):
        if job.params:
            raise NoStrategy(f"{job.reference} is an instance: it takes no params")
        return found
    if not callable(found):
        raise NoStrategy(f"{job.reference} is {type(found).__name__}, no Strategy and no factory")
    strategy = found(*_run_config(found, job), **job.params)
    if not isinstance(strategy, Strategy):
        raise NoStrategy(f"{job.reference} gave {type(strategy).__name__}, not a Strategy")
    return strategy


def _run_config(found: Any, job: Job) -> list[dict[str, Any]]:
    needed = [
        one.name
        for one in inspect.signature(found).parameters.values()
        if one.kind in _POSITIONAL and one.default is one.empty and one.name not in job.params
    ]
    return [dict(job.config)] if len(needed) == 1 else []


# --- what is called ---------------------------------------------------------


def _trained(strategy: Strategy, job: Job) -> tuple[ArrayRecord | None, MetricRecord | None]:
    base, config = read_arrays(Path(job.base)), _order(job)
    orders = list(strategy.configure_train(job.round_number, base, config, _seats(strategy, job)))
    _check(orders, base, job)
    seed_all(job.seed)  # however much sampling has used
    return strategy.aggregate_train(job.round_number, _replies(orders, job))


def _evaluated(strategy: Strategy, job: Job) -> tuple[MetricRecord | None, bool]:
    """Its metrics, and whether it would remember something: a training alone is carried on."""
    base, before = read_arrays(Path(job.base)), kept(strategy)
    seats = _seats(strategy, job)
    orders = list(strategy.configure_evaluate(job.round_number, base, _order(job), seats))
    _check(orders, base, job)
    metrics = strategy.aggregate_evaluate(job.round_number, _replies(orders, job))
    return metrics, kept(strategy) != before


def _seats(strategy: Strategy, job: Job) -> Any:
    """Its cohort; Flower's own sampling would wait for ever for as many as it wants at least."""
    ids = [FIRST_NODE + reply["place"] for reply in job.replies]
    wanted = int(getattr(strategy, "min_available_nodes", 0))
    spare = range(max(ids) + 1, max(ids) + 1 + max(0, wanted - len(ids)))
    return Seats([*ids, *spare])


def _order(job: Job) -> ConfigRecord:
    return ConfigRecord({**job.order, "server-round": job.round_number})


def _check(orders: Iterable[Message], base: ArrayRecord, job: Job) -> None:
    """The clients have had the round's orders already: a strategy may not have meant others."""
    told = dict(_order(job))
    for order in orders:
        for config in order.content.config_records.values():
            changed = {key: value for key, value in config.items() if told.get(key) != value}
            if changed:
                raise NoStrategy(
                    f"round {job.round_number}: the strategy would tell its clients {changed},"
                    " and they are told what spec.train says (spec.server_app: whole runs a"
                    " ServerApp that tells them itself)"
                )
        for arrays in order.content.array_records.values():
            if arrays is not base and dict(arrays) != dict(base):
                raise NoStrategy(
                    f"round {job.round_number}: the strategy would send other arrays than the base"
                )


def _replies(orders: Iterable[Message], job: Job) -> list[Message]:
    """In cohort order, each to the order that the strategy made for its node, if it made one."""
    by_node = {order.metadata.dst_node_id: order for order in orders}
    return [_reply(by_node.get(FIRST_NODE + one["place"]), one, job) for one in job.replies]


def _reply(order: Message | None, told: Mapping[str, Any], job: Job) -> Message:
    if order is None:
        node = FIRST_NODE + told["place"]
        order = Message(RecordDict(), node, job.exchange, ttl=TTL_SECONDS)
    metrics = MetricRecord({"num-examples": told["n_examples"], **told["metrics"]})
    content = RecordDict({"metrics": metrics})
    if job.exchange == "train":
        content = RecordDict({"arrays": read_arrays(Path(told["arrays"])), "metrics": metrics})
    return Message(content, reply_to=order)


def _numbers(metrics: MetricRecord | None) -> dict[str, float] | None:
    if metrics is None:
        return None
    return {name: one for name, one in metrics.items() if isinstance(one, int | float)}


# --- what is kept -----------------------------------------------------------


def kept(strategy: Strategy) -> bytes:
    """Its attributes, without those that are code: the same ones, the same bytes."""
    held = _held(strategy)
    try:
        return pickle.dumps(held, protocol=5)
    except Exception as error:  # whatever a class may raise
        raise NoStrategy(f"{_culprit(held)} cannot be kept from round to round: {error}") from error


def restore(strategy: Strategy, before: bytes) -> None:
    for name in _held(strategy):
        delattr(strategy, name)
    # What the same code pickled: the bridge found its digest in its own log.
    vars(strategy).update(pickle.loads(before))  # noqa: S301


def _held(strategy: Strategy) -> dict[str, Any]:
    return {name: one for name, one in vars(strategy).items() if not isinstance(one, _CODE)}


def _culprit(held: Mapping[str, Any]) -> str:
    for name, one in held.items():
        try:
            pickle.dumps(one, protocol=5)
        except Exception:
            return f"attribute {name} ({type(one).__name__}) of the strategy"
    return "the strategy"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Have a strategy aggregate one exchange.")
    parser.add_argument("--job", type=Path, required=True, metavar="FILE.json")
    run(Job(**json.loads(parser.parse_args(arguments).job.read_text())))


if __name__ == "__main__":
    die_with(os.getppid())  # nobody waits for the answer then, and the code may never end
    main()
