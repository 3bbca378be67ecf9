"""Makes the tiny app one of the installed ones: in a test, in a worker, in an agent."""

import sys
from dataclasses import dataclass
from pathlib import Path

from flowerbed.flower_apps.registry import BuiltinApp

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[2]
WORKER_COMMAND = (sys.executable, str(HERE / "tiny_worker.py"))
AGENT_COMMAND = (sys.executable, str(HERE / "tiny_agent.py"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyApp(BuiltinApp):
    @property
    def folder(self) -> Path:
        return HERE / "tiny"


TINY = TinyApp(
    name="tiny",
    client_app="tests.integration.runner.tiny.client_app:app",
    server_app="",
    initial_arrays="",
)
