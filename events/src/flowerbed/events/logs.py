"""Logs: one JSON object a line on standard output, with its trace and federation."""

import logging
import logging.config
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from opentelemetry import trace
from pythonjsonlogger.json import JsonFormatter

_federation: ContextVar[str | None] = ContextVar("federation", default=None)


@contextmanager
def about(federation_id: str | None) -> Iterator[None]:
    """Lines that are written meanwhile are about this federation."""
    token = _federation.set(federation_id)
    try:
        yield
    finally:
        _federation.reset(token)


class _Line(JsonFormatter):
    def add_fields(
        self,
        log_data: dict[str, Any],
        record: logging.LogRecord,
        message_dict: dict[str, Any],
    ) -> None:
        super().add_fields(log_data, record, message_dict)
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            log_data["trace_id"] = trace.format_trace_id(span.trace_id)
            log_data["span_id"] = trace.format_span_id(span.span_id)
        if (federation_id := _federation.get()) is not None:
            log_data.setdefault("federation_id", federation_id)


def set_up_logging(service: str, level: str = "INFO") -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "line": {
                    "()": _Line,
                    "fmt": "%(asctime)s %(levelname)s %(name)s %(message)s",
                    "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
                    "static_fields": {"service": service},
                    "defaults": {},
                }
            },
            "handlers": {
                "out": {
                    "class": "logging.StreamHandler",
                    "stream": "ext://sys.stdout",
                    "formatter": "line",
                }
            },
            "root": {"handlers": ["out"], "level": level.upper()},
        }
    )
    for quiet in ("httpx", "httpcore", "urllib3", "nats", "uvicorn"):
        logging.getLogger(quiet).setLevel(logging.WARNING)
