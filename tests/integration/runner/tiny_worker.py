"""The runner's worker, with the tiny app installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from flowerbed.flower_apps import registry
from flowerbed.runner.worker import main
from tests.integration.runner.tiny_app import TINY

registry.BUILTIN["tiny"] = TINY
main()
