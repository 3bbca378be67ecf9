"""Text that leaves the site loses whatever could name the site, its folders or its files."""

import getpass
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

LONGEST = 4000

_QUOTED_PATH = re.compile(r"""(['"])(?:~|\.{0,2})?(?:/|[A-Za-z]:\\)[^'"\n]*\1""")
_BARE_PATH = re.compile(r"(?<![\w/])(?:[A-Za-z]:\\|~?/|\.{1,2}/)[^\s'\",;:()\[\]{}<>]+")
_WORD = re.compile(r"[\w.-]*\w")


def scrub(text: str, folder: Path, names: Iterable[str]) -> str:
    """`text` without paths, names of the dataset's files, the host's or the user's name."""
    for place in {str(folder), str(folder.resolve()), str(Path.home())} - {"/"}:
        text = text.replace(place, "<path>")
    text = _QUOTED_PATH.sub("<path>", text)
    text = _BARE_PATH.sub("<path>", text)
    hidden = {*names, *_own_names()}
    for name in hidden:
        if not _WORD.fullmatch(name) and len(name) > 2:
            text = text.replace(name, "<file>")
    text = _WORD.sub(lambda word: "<name>" if word.group() in hidden else word.group(), text)
    return text if len(text) <= LONGEST else text[: LONGEST // 2] + "\n…\n" + text[-LONGEST // 2 :]


def _own_names() -> set[str]:
    names = {socket.gethostname(), socket.gethostname().partition(".")[0]}
    with suppress(OSError, KeyError):  # a user without an entry in the user database
        names.add(getpass.getuser())
    return names - {"", "localhost", "root"}
