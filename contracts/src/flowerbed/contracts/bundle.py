"""A Flower App Bundle (FAB): a zip of an app's folder. Read with suspicion, unpacked with more.

The bytes come from a person, and are unpacked where their owner's data lie: nothing in a bundle may
be written outside of the folder that is meant, or fill the disk.
"""

import hashlib
import io
import re
import shutil
import stat
import tempfile
import tomllib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from flowerbed.contracts.values import Scalar
from flowerbed.contracts.whole import ROUNDS

LARGEST_BUNDLE = 10 * 1024 * 1024
"""Bytes: as Flower has it."""
LARGEST_UNPACKED = 100 * 1024 * 1024
MOST_FILES = 10_000
PROJECT = "pyproject.toml"
SIGNATURE = ".info/SIGNATURE"
"""Where a publisher's signature lies in a bundle that has one."""
LARGEST_SIGNATURE = 4096

_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", re.ASCII)
_WORD = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_DAMAGED = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, OSError, ValueError,
    RuntimeError, NotImplementedError, OverflowError,
)  # fmt: skip
"""What `zipfile` may raise for bytes that are no zip, or not one of its kinds."""


class BadBundle(ValueError):
    """The bytes are no bundle that may be used; the message says why, for its author."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """`server_app`: its ServerApp; empty where it names none.
    `config`: the app's own defaults, `[tool.flwr.app.config]`, nested keys joined with dots.

    `content`: sha256 over the names and digests of all files but the signature: what is signed.
    `signature`: what lies there, which nobody has checked.
    """

    sha256: str
    size: int
    name: str
    version: str
    publisher: str
    client_app: str
    server_app: str
    config: Mapping[str, Scalar]
    content: str
    signature: str | None = None


def read_bundle(raw: bytes) -> Bundle:
    """What the bundle says of itself.

    Raises:
        BadBundle: it is too large, no zip, would write elsewhere, or holds no Flower app.
    """
    return _described(raw, files_of(raw))


def unpack(raw: bytes, folder: Path) -> Bundle:
    """Write its files into `folder`, which appears whole or not at all; what was there is gone.

    Raises:
        BadBundle: it may not be used; nothing was written.
    """
    files = files_of(raw)
    bundle = _described(raw, files)
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    there = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unpacking-"))
    try:
        for name, content in files.items():
            path = there / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_bytes(content)
        shutil.rmtree(folder, ignore_errors=True)
        there.rename(folder)
    finally:
        shutil.rmtree(there, ignore_errors=True)
    return bundle


def with_signature(raw: bytes, signature: str) -> bytes:
    """The bundle with that signature in it; the same bytes for the same two.

    Raises:
        BadBundle: it is signed already.
    """
    if SIGNATURE in files_of(raw):
        raise BadBundle("it is signed already")
    buffer = io.BytesIO(raw)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(SIGNATURE), signature)
    return buffer.getvalue()


def run_config(
    defaults: Mapping[str, Scalar], hyper_parameters: Mapping[str, Scalar]
) -> dict[str, Scalar]:
    """What the app finds in `context.run_config`: its defaults, and the spec's words over them.

    A number stays of the kind that the app gave it: `lr: 1` is a float where its default is one.
    The number of rounds is told only to an app that has a name for it.
    """
    config = dict(defaults)
    for name, value in hyper_parameters.items():
        key = name.replace("_", "-")
        if name == ROUNDS and key not in config:
            continue
        is_float = isinstance(config.get(key), float)
        whole = isinstance(value, int) and not isinstance(value, bool)
        config[key] = float(value) if is_float and whole else value
    return config


def files_of(raw: bytes) -> dict[str, bytes]:
    """Each file by its name, which stays below the folder that it is unpacked into.

    Raises:
        BadBundle: it is too large, no zip, or would write elsewhere.
    """
    if len(raw) > LARGEST_BUNDLE:
        raise BadBundle(f"it has {len(raw)} bytes, at most {LARGEST_BUNDLE} are taken")
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = [one for one in archive.infolist() if not one.is_dir()]
            _check(members)
            return {one.filename: archive.read(one) for one in members}
    except BadBundle:
        raise
    except _DAMAGED as error:
        raise BadBundle(f"it is no zip file that can be read ({error})") from error


def _check(members: list[zipfile.ZipInfo]) -> None:
    if len(members) > MOST_FILES:
        raise BadBundle(f"it holds {len(members)} files, at most {MOST_FILES} are taken")
    if (size := sum(one.file_size for one in members)) > LARGEST_UNPACKED:
        raise BadBundle(f"it unpacks to {size} bytes, at most {LARGEST_UNPACKED} are taken")
    seen: set[str] = set()
    for one in members:
        _check_name(one.filename)
        kind = stat.S_IFMT(one.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise BadBundle(f"{one.filename!r} is a link or a device, not a file")
        if one.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BadBundle(f"{one.filename!r} is not deflated, as Flower builds it")
        folded = one.filename.casefold()
        if folded in seen:
            raise BadBundle(f"{one.filename!r} is in it twice")
        seen.add(folded)
    for name in seen:
        if any(str(above) in seen for above in PurePosixPath(name).parents):
            raise BadBundle(f"{name!r} is below a file, not below a folder")


def _check_name(name: str) -> None:
    parts = name.split("/")
    is_plain = "\\" not in name and ":" not in name and name.isprintable() and len(name) <= 500
    if not is_plain or any(part in ("", ".", "..") for part in parts):
        raise BadBundle(f"{name!r} is no name of a file below the app's folder")


def _described(raw: bytes, files: Mapping[str, bytes]) -> Bundle:
    project = _project(files)
    app = _table(project, "tool", "flwr", "app")
    client_app = _component(app, "clientapp")
    if not client_app:
        raise BadBundle(
            f"its {PROJECT} names no Flower app: [tool.flwr.app.components] needs"
            ' clientapp = "module:name"'
        )
    about = _table(project, "project")
    return Bundle(
        sha256=hashlib.sha256(raw).hexdigest(),
        size=len(raw),
        name=_word(about, "name", "[project]"),
        version=_word(about, "version", "[project]"),
        publisher=_word(app, "publisher", "[tool.flwr.app]"),
        client_app=client_app,
        server_app=_component(app, "serverapp"),
        config=_flat(_table(app, "config")),
        content=_content(files),
        signature=_signature(files),
    )


def _content(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name in sorted(files.keys() - {SIGNATURE}):
        digest.update(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n".encode())
    return digest.hexdigest()


def _signature(files: Mapping[str, bytes]) -> str | None:
    raw = files.get(SIGNATURE)
    if raw is None:
        return None
    if len(raw) > LARGEST_SIGNATURE or not raw.isascii():
        raise BadBundle(f"its {SIGNATURE} is no signature")
    return raw.decode()


def _component(app: Mapping[str, Any], name: str) -> str:
    """What it names, or nothing that could be loaded."""
    found = _table(app, "components").get(name)
    return found if isinstance(found, str) and _REFERENCE.fullmatch(found) else ""


def _project(files: Mapping[str, bytes]) -> dict[str, Any]:
    if PROJECT not in files:
        raise BadBundle(f"it has no {PROJECT}: is it the folder of a Flower app?")
    try:
        return tomllib.loads(files[PROJECT].decode())
    except ValueError as error:
        raise BadBundle(f"its {PROJECT} cannot be read: {error}") from error


def _table(document: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """The table at that place; an empty one where there is none."""
    for key in path:
        below = document.get(key, {})
        document = below if isinstance(below, Mapping) else {}
    return document


def _word(table: Mapping[str, Any], key: str, place: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or _WORD.fullmatch(value) is None:
        raise BadBundle(f"its {PROJECT} has no {key} in {place}")
    return value


def _flat(table: Mapping[str, Any], above: str = "") -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    for key, value in table.items():
        match value:
            case Mapping():
                found |= _flat(value, f"{above}{key}.")
            case bool() | int() | float() | str():
                found[f"{above}{key}"] = value
            case _:
                raise BadBundle(
                    f"its {PROJECT} has {above}{key} in [tool.flwr.app.config], which is no text,"
                    " number or boolean"
                )
    return found
