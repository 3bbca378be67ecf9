"""A service's log line in plain words: time, how bad, what; the trace where there is one.

Services write JSON, one object a line; the servers beside them write what they write.
"""

import json
from datetime import datetime
from typing import Any

from flowerbed.cli.output import coloured

_COLOURS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red", "DEBUG": "blue"}
_SHORT = {"WARNING": "warn", "CRITICAL": "ERROR"}
_TRACE = 8
"""Digits of a trace id that tell it from others at a glance; `--raw` has all."""


def in_words(line: str) -> str:
    """The line for a person; as it is where it is no JSON object of ours."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict) or "message" not in entry:
        return line
    level = str(entry.get("level", "INFO"))
    shown = coloured(f"{_SHORT.get(level, level.lower()):<5}", _COLOURS.get(level))
    text = f"{_clock(entry.get('time'))} {shown} {_source(entry)}{entry['message']}{_ids(entry)}"
    trouble = entry.get("exc_info")
    return f"{text}\n{_indented(str(trouble))}" if trouble else text


def _source(entry: dict[str, Any]) -> str:
    logger = str(entry.get("logger", "")).removeprefix("flowerbed.")
    return f"{logger}: " if logger else ""


def _ids(entry: dict[str, Any]) -> str:
    found = [str(entry[name]) for name in ("federation_id", "client_id") if entry.get(name)]
    if trace := entry.get("trace_id"):
        found.append(f"trace {str(trace)[:_TRACE]}")
    return f"  ({', '.join(found)})" if found else ""


def _clock(text: Any) -> str:
    """`2026-11-26 00:01:02,345` as logging writes it, without the thousandths."""
    try:
        return datetime.fromisoformat(str(text).replace(",", ".")).strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return str(text or "")


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
