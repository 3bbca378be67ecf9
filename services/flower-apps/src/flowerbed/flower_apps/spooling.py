"""Files named by what they hold."""

import hashlib
import threading
from pathlib import Path


def spool(raw: bytes, folder: Path) -> tuple[str, int]:
    """Write the bytes once; their sha256, which is the file's name, and their number."""
    sha256 = hashlib.sha256(raw).hexdigest()
    path = folder / sha256
    if not path.exists():
        part = folder / f".{sha256}.{threading.get_ident()}"
        part.write_bytes(raw)
        part.rename(path)
    return sha256, len(raw)
