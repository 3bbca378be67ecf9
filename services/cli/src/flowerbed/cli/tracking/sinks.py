"""Where a tracker keeps what it is told: TensorBoard's files, MLflow, or Weights & Biases."""

from importlib.util import find_spec
from typing import Protocol
from urllib.parse import urlsplit

from flowerbed.cli.api import CommandFailed
from flowerbed.cli.output import BAD_INPUT
from flowerbed.cli.tracking.rounds import Measured, Run

KINDS = {
    "tensorboard": ("tensorboardX", "tensorboardX", "tensorboard:DIRECTORY"),
    "mlflow": ("mlflow", "mlflow-skinny", "mlflow:URI"),
    "wandb": ("wandb", "wandb", "wandb:PROJECT"),
}
"""The module that each needs, the package that has it, and how it is named."""


class Sink(Protocol):
    def last_round(self, run: Run) -> int | None:
        """The highest round that it holds of this run; 0 for none, None if it cannot tell."""

    def log(self, run: Run, one: Measured) -> None:
        """Returns when the tracker has it for good."""

    def end(self, run: Run, status: str) -> None: ...

    def close(self) -> None: ...


def open_sink(to: str, *, offline: bool) -> Sink:
    """Raises: CommandFailed: there is no such tracker, or its library is not installed."""
    kind, colon, where = to.partition(":")
    if kind not in KINDS or not colon or not where:
        forms = ", ".join(form for _, _, form in KINDS.values())
        raise CommandFailed(f"--to {to!r} is none of {forms}", exit_code=BAD_INPUT)
    if offline and kind != "wandb":
        raise CommandFailed(f"--offline is of wandb, not of {kind}", exit_code=BAD_INPUT)
    if urlsplit(where).password:
        raise CommandFailed(
            "--to holds a password, which others on this machine can read: set"
            " MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead",
            exit_code=BAD_INPUT,
        )
    module, package, _ = KINDS[kind]
    if find_spec(module) is None:
        raise CommandFailed(
            f"{kind} needs the package {package}, which is not installed: `pip install {package}`",
            exit_code=BAD_INPUT,
        )
    return _opened(kind, where, offline)


def _opened(kind: str, where: str, offline: bool) -> Sink:
    """Each library is imported when it is wanted, and by its own module alone."""
    match kind:
        case "tensorboard":
            from flowerbed.cli.tracking.to_tensorboard import TensorBoard

            return TensorBoard(where)
        case "mlflow":
            from flowerbed.cli.tracking.to_mlflow import MLflow

            return MLflow(where)
        case _:
            from flowerbed.cli.tracking.to_wandb import WeightsAndBiases

            return WeightsAndBiases(where, offline=offline)
