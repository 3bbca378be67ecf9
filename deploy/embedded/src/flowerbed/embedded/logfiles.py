"""Log files of the components: appended to, turned over at a size, read from their end."""

import time
from collections.abc import Callable, Iterator
from io import BufferedWriter
from pathlib import Path

TURN_OVER_AT = 10 * 1024 * 1024
_BLOCK = 64 * 1024


def open_log(path: Path) -> BufferedWriter:
    """For a process that starts; what is too long becomes `<name>.log.1` first."""
    if path.exists() and path.stat().st_size > TURN_OVER_AT:
        path.replace(path.with_name(path.name + ".1"))
    path.touch(mode=0o600)
    return path.open("ab")


def tail(path: Path, lines: int) -> str:
    """The last lines of a file, without reading all of it."""
    if lines <= 0 or not path.exists():
        return ""
    with path.open("rb") as file:
        position = file.seek(0, 2)
        data = b""
        while position > 0 and data.count(b"\n") <= lines:
            step = min(_BLOCK, position)
            position = file.seek(position - step)
            data = file.read(step) + data
    return "\n".join(data.decode(errors="replace").splitlines()[-lines:])


def follow(
    paths: list[Path], stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[str, str]]:
    """(component, line) as they are written, from now on, also after a log is turned over."""
    places = {path: (_inode(path), path.stat().st_size if path.exists() else 0) for path in paths}
    rest = dict.fromkeys(paths, b"")
    while not stop():
        for path in paths:
            inode, offset = places[path]
            if _inode(path) != inode:
                inode, offset = _inode(path), 0
            if inode is None:
                continue
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read()
            places[path] = (inode, offset + len(data))
            *complete, rest[path] = (rest[path] + data).split(b"\n")
            for line in complete:
                yield path.stem, line.decode(errors="replace")
        time.sleep(0.2)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
