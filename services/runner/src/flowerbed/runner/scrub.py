"""Text that leaves the site loses whatever could name the site, its folders, files or people."""

import getpass
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

LONGEST = 4000

_ADDRESS = re.compile(r"\b(?:file|s3|gs|smb|nfs|hdfs|ftp|sftp)://[^\s'\"<>]+", re.IGNORECASE)
_SHARE = re.compile(r"\\\\[\w.-]+\\[^\s'\"<>]+")
_QUOTED_PATH = re.compile(r"""(['"])(?:~|\.{0,2})?(?:/|[A-Za-z]:\\)[^'"\n]*\1""")
_BARE_PATH = re.compile(r"(?<![\w/])(?:[A-Za-z]:\\|~?/|\.{1,2}/)[^\s'\",;:()\[\]{}<>]+")
_INNER_PATH = re.compile(r"(?<![\w/.-])[\w.-]+(?:[/\\][\w.-]+)*[/\\][\w-]*\w\.[A-Za-z]\w{0,7}\b")
"""A file below some folder: `ward/anna.csv`, and not `3/10`."""
_PARTS = re.compile(r"(?:<path>){2,}")
_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)*")
_WORD = re.compile(r"(?<![\w.-])[\w.-]*\w")


class Scrubber:
    """For one dataset, as its files are called now."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._places = {str(folder), str(folder.resolve()), str(Path.home())} - {"/"}
        self._hidden = {*names, *_own_names()}
        self._odd = [name for name in self._hidden if len(name) > 2 and not _WORD.fullmatch(name)]

    def __call__(self, text: str) -> str:
        """`text` without paths, names of the dataset's files, the host's, the user's, or mail."""
        for place in self._places:
            text = text.replace(place, "<path>")
        for pattern in (_ADDRESS, _SHARE, _QUOTED_PATH, _BARE_PATH, _INNER_PATH):
            text = pattern.sub("<path>", text)
        text = _PARTS.sub("<path>", text)
        text = _MAIL.sub("<mail>", text)
        for name in self._odd:
            text = text.replace(name, "<file>")
        return _WORD.sub(self._word, text)

    def _word(self, word: re.Match[str]) -> str:
        return "<name>" if word.group() in self._hidden else word.group()


def scrub(text: str, folder: Path, names: Iterable[str]) -> str:
    """The same once, and cut in the middle where it is long."""
    text = Scrubber(folder, names)(text)
    return text if len(text) <= LONGEST else text[: LONGEST // 2] + "\n…\n" + text[-LONGEST // 2 :]


def _own_names() -> set[str]:
    names = {socket.gethostname(), socket.gethostname().partition(".")[0]}
    with suppress(OSError, KeyError):  # a user without an entry in the user database
        names.add(getpass.getuser())
    return names - {"", "localhost", "root"}
