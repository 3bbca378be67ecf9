"""Weights & Biases: a run for each federation; without a network, files that `wandb sync` sends.

It is told nothing about this machine: no host, no user, no code, no use of the processor.
"""

import os
from typing import Any

import wandb

from flowerbed.cli.api import CommandFailed
from flowerbed.cli.output import BAD_INPUT
from flowerbed.cli.tracking.rounds import Measured, Run


class WeightsAndBiases:
    def __init__(self, project: str, *, offline: bool) -> None:
        if not offline and not os.environ.get("WANDB_API_KEY"):
            raise CommandFailed(
                "wandb needs WANDB_API_KEY, or --offline to write files that are sent later",
                exit_code=BAD_INPUT,
            )
        self._project, self._offline = project, offline
        self._runs: dict[str, Any] = {}

    def last_round(self, run: Run) -> int | None:
        """As the server tells, which counts on from there; files are not read back."""
        return None if self._offline else max(0, int(self._run(run).step) - 1)

    def log(self, run: Run, one: Measured) -> None:
        self._run(run).log(dict(one.values), step=one.number, commit=True)

    def end(self, run: Run, status: str) -> None:
        held = self._runs.pop(run.federation_id, None)
        if held is not None:
            held.summary["status"] = status
            held.finish(exit_code=0 if status == "completed" else 1)

    def close(self) -> None:
        for held in self._runs.values():
            held.finish()

    def _run(self, run: Run) -> Any:
        if run.federation_id not in self._runs:
            self._runs[run.federation_id] = wandb.init(
                project=self._project,
                id=run.federation_id,
                name=run.name,
                group=run.tenant,
                config=dict(run.settings),
                mode="offline" if self._offline else "online",
                resume="allow",
                reinit="create_new",
                settings=_settings(),
            )
        return self._runs[run.federation_id]


def _settings() -> "wandb.Settings":
    return wandb.Settings(
        console="off",
        silent=True,
        disable_code=True,
        disable_git=True,
        host="",
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
    )
