"""The runner's agent, with the tiny app installed, as a process of its own."""

import logging
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from flowerbed.flower_apps import registry
from flowerbed.runner import journal, launch, transfer
from flowerbed.runner.state import StateDir
from tests.integration.runner.tiny_app import TINY, WORKER_COMMAND

registry.BUILTIN["tiny"] = TINY


def kill_at(moment: str) -> None:
    """Die like kill -9 at one moment: around the journal's writing, or after the upload."""
    if moment == "answered":

        def die(*_: object, **__: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        journal.Journal.record = die  # type: ignore[method-assign]
    if moment == "journalled":
        record = journal.Journal.record

        def record_and_die(*args: object, **kwargs: object) -> None:
            record(*args, **kwargs)  # type: ignore[arg-type]  # passed on as it came
            os.kill(os.getpid(), signal.SIGKILL)

        journal.Journal.record = record_and_die  # type: ignore[method-assign]
    if moment == "uploaded":
        upload = transfer.upload

        async def upload_and_die(*args: object) -> None:
            await upload(*args)  # type: ignore[arg-type]  # passed on as it came
            os.kill(os.getpid(), signal.SIGKILL)

        transfer.upload = upload_and_die  # type: ignore[assignment]


if __name__ == "__main__":
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    kill_at(os.environ.get("KILL_AT", ""))
    launch.run_agent(StateDir.at(Path(sys.argv[-1])), WORKER_COMMAND)
