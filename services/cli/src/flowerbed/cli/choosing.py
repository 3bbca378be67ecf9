"""What a person chooses at `flowerbed client start`, read and checked."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from flowerbed.contracts.values import Scalar
from flowerbed.runner.errors import BadInput
from flowerbed.runner.state import STATE_DIR_VARIABLE

TOLD_ANYWAY = frozenset(("data-path", "checkpoint-dir"))


StateDirOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        envvar=STATE_DIR_VARIABLE,
        help="Where this client keeps its identity and its journal.",
        show_default="flowerbed/client in the user's data home",
    ),
]


def chosen(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that were given, by name.

    Raises:
        BadInput: one of them cannot be.
    """
    found = {name: value for name, value in given.items() if value is not None}
    endpoint = found.get("otlp_endpoint")
    if endpoint is not None and not endpoint.startswith(("http://", "https://")):
        raise BadInput(f"--otlp-endpoint is {endpoint!r}, not http://HOST:PORT or https://…")
    if "otlp_allowed" in found:
        found["otlp_allowed"] = _origins(found["otlp_allowed"])
    if "python" in found:
        from flowerbed.runner.interpreter import chosen_python

        own = found["python"] == "none"
        found["python"] = None if own else chosen_python(found["python"])
    if "node_config" in found:
        found["node_config"] = node_config(found["node_config"])
    return found


def node_config(text: str) -> dict[str, Scalar]:
    """`partition-id=0 num-partitions=2`, as Flower's own --node-config has it."""
    config: dict[str, Scalar] = {}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BadInput(f"--node-config: {error}") from error
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise BadInput(f"--node-config: {word!r} is not NAME=VALUE")
        if name in TOLD_ANYWAY:
            raise BadInput(f"--node-config: {name} is what the agent itself says")
        config[name] = _scalar(value)
    return config


def _origins(given: Sequence[str]) -> tuple[str, ...]:
    from flowerbed.contracts.telemetry import read_origins

    try:
        return tuple(read_origins(given))
    except ValueError as error:
        raise BadInput(f"--otlp-allow: {error}") from error


def _scalar(text: str) -> Scalar:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
