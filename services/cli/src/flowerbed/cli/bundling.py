"""A Flower app's folder becomes a bundle that the control plane has, by Flower's own builder."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowerbed.cli.failing import CommandFailed
from flowerbed.cli.output import BAD_INPUT

Push = Callable[[bytes, str], str]
"""The bundle and its tenant in, the app's name for a spec out."""


def bundle_of(path: Path) -> bytes:
    """The bytes of a FAB file, or those that Flower makes of an app's folder.

    Raises:
        CommandFailed: there is no Flower app.
    """
    from flowerbed.contracts.bundle import BadBundle, read_bundle

    try:
        raw = _built(path) if path.is_dir() else path.read_bytes()
        read_bundle(raw)
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}", exit_code=BAD_INPUT) from error
    except BadBundle as error:
        message = f"{path} is no Flower app that can be taken: {error}"
        raise CommandFailed(message, exit_code=BAD_INPUT) from error
    return raw


def signed_bundle_of(path: Path, key: Path) -> bytes:
    """The same, signed with that publisher's key.

    Raises:
        CommandFailed: there is no Flower app, or it is signed already.
        BadInput: there is no key.
    """
    from flowerbed.contracts.bundle import BadBundle
    from flowerbed.runner.publishers import load_key, sign

    loaded, raw = load_key(key), bundle_of(path)
    try:
        return sign(raw, loaded)
    except BadBundle as error:
        raise CommandFailed(f"{path}: {error}", exit_code=BAD_INPUT) from error


def _built(folder: Path) -> bytes:
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    import click
    from flwr.cli.build import build_fab_from_disk

    try:
        return build_fab_from_disk(folder)
    except (ValueError, click.ClickException) as error:
        message = f"{folder} is no Flower app: {_one_line(str(error))}"
        raise CommandFailed(message, exit_code=BAD_INPUT) from error


def with_pushed_app(document: bytes, place: Path, push: Push) -> bytes:
    """The spec; where its app is a folder or a FAB file, that is pushed and named instead.

    `place`: the folder that the spec's paths start from.

    Raises:
        CommandFailed: there is no Flower app.
    """
    from flowerbed.events.documents import DocumentUnreadable, read_document

    try:
        spec = read_document(document)
    except DocumentUnreadable:
        return document  # whoever reads it next says what is wrong
    path = app_path(spec, place)
    if path is None:
        return document
    assert isinstance(spec, dict)
    tenant = _at(spec, "metadata").get("tenant", "default")
    app = push(bundle_of(path), str(tenant))
    return json.dumps({**spec, "spec": {**spec["spec"], "app": app}}, ensure_ascii=False).encode()


def app_path(spec: object, place: Path) -> Path | None:
    """What `spec.app` names on this machine; None if it names an app of the control plane."""
    app = _at(spec, "spec").get("app")
    if not isinstance(app, str) or not app or ":" in app:
        return None
    path = place / Path(app).expanduser()
    is_meant = app.startswith((".", "/", "~")) or "/" in app or app.endswith(".fab")
    return path if is_meant or path.exists() else None


def _at(document: object, key: str) -> dict[str, Any]:
    below = document.get(key) if isinstance(document, dict) else None
    return below if isinstance(below, dict) else {}


def _one_line(text: str) -> str:
    return " ".join(text.split())
