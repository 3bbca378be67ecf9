"""OIDC issuers whose tokens the gateway takes: chosen by `up --issuers FILE`, then kept."""

import json
from pathlib import Path
from typing import Any

from flowerbed.contracts.issuers import Issuer, read_issuers
from flowerbed.embedded.errors import BadInput
from flowerbed.embedded.layout import Layout, write_private
from flowerbed.events.documents import DocumentUnreadable, read_document


def kept_issuers(layout: Layout) -> tuple[Issuer, ...]:
    """Those that this stack knows; none at first."""
    if not layout.issuers.exists():
        return ()
    return read_issuers(json.loads(layout.issuers.read_text()))


def as_settings(issuers: tuple[Issuer, ...]) -> list[dict[str, Any]]:
    return [one.model_dump(mode="json", exclude_defaults=True) for one in issuers]


def wanted_issuers(layout: Layout, file: Path | None) -> tuple[Issuer, ...]:
    """Those of the file, YAML or JSON: a list. Without a file, those of before.

    Raises:
        BadInput: the file holds no issuers, or cannot be read.
    """
    if file is None:
        return kept_issuers(layout)
    try:
        document = read_document(file.read_bytes())
    except OSError as error:
        raise BadInput(f"--issuers {file}: {error.strerror}") from error
    except DocumentUnreadable as error:
        raise BadInput(f"--issuers {file}: {error}") from error
    try:
        return read_issuers([] if document is None else document)
    except ValueError as error:
        raise BadInput(f"--issuers {file}: {_first_problem(error)}") from error


def keep_issuers(layout: Layout, issuers: tuple[Issuer, ...]) -> None:
    if issuers != kept_issuers(layout):
        write_private(layout.issuers, json.dumps(as_settings(issuers), indent=2) + "\n")


def _first_problem(error: ValueError) -> str:
    """Where, and what is wrong there."""
    errors = getattr(error, "errors", None)
    if errors is None:
        return str(error)
    first = errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])
