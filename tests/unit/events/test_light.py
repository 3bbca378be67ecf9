"""What is not asked for is not loaded: start-up time and idle memory are measured."""

import os
import subprocess
import sys

import pytest

HEAVY = ("opentelemetry.sdk", "opentelemetry.exporter", "grpc", "zeus", "torch", "flwr")


@pytest.mark.parametrize("module", ["flowerbed.lease.__main__", "flowerbed.runner.launch"])
def test_no_sdk_is_loaded_without_an_endpoint(module: str) -> None:
    program = (
        f"import sys, {module}\n"
        "from flowerbed.contracts.trace import trace_id\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=kept, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
