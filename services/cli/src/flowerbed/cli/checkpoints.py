"""Which checkpoints are meant, their bytes, and whether those are what the log says."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowerbed.cli.api import Api
from flowerbed.cli.failing import CommandFailed, Unreachable
from flowerbed.cli.output import BAD_INPUT
from flowerbed.contracts.forms import FROZEN

if TYPE_CHECKING:
    from flowerbed.artifact.blobs import Blobs

_DIGEST = re.compile(r"[0-9a-f]{64}")
_FOLD_PATIENCE = 900.0


def digest_of(text: str) -> str:
    if _DIGEST.fullmatch(text) is None:
        raise CommandFailed(f"{text!r} is no sha256 of 64 hex digits", exit_code=BAD_INPUT)
    return text


def records(api: Api, sha256: str, tenant: str | None = None) -> list[dict[str, Any]]:
    found = api.get(f"/artifacts/{digest_of(sha256)}", tenant=tenant, tries=2)
    known: list[dict[str, Any]] = found["records"]
    return known


def meant(api: Api, what: str) -> tuple[str, str]:
    """URI and digest of an artifact, or of a federation's final checkpoint."""
    if _DIGEST.fullmatch(what):
        record = records(api, what)[0]
        return record["uri"], record["sha256"]
    federation = api.federation(what)
    final = federation["final"]
    if final is None:
        raise CommandFailed(f"federation {what} is {federation['status']}: no final checkpoint")
    return final["uri"], final["sha256"]


def chosen(api: Api, what: str) -> list[dict[str, Any]]:
    """The base and checkpoints that `what` names, by round."""
    if _DIGEST.fullmatch(what):
        found = records(api, what)
    else:
        identity, _, number = what.partition("/")
        if number and not number.isdecimal():
            raise CommandFailed(f"{number!r} is no round's number", exit_code=BAD_INPUT)
        found = api.federation(identity)["artifacts"]
        if number:
            found = [one for one in found if one["round_number"] == int(number)]
    wanted = [one for one in found if one["kind"] != "state"]
    if not wanted:
        raise CommandFailed(f"{what} has no checkpoint to verify")
    return sorted(wanted, key=lambda one: (one["federation_id"], one["round_number"]))


# --- bytes ------------------------------------------------------------------


def fetch(blobs: "Blobs", uri: str, sha256: str, to: Path) -> None:
    """Beside the target first, so that a wrong or half file never has its name."""
    try:
        handle, name = tempfile.mkstemp(dir=to.parent, prefix=f".{to.name}.")
    except OSError as error:
        raise CommandFailed(f"--to {to}: {error.strerror}", exit_code=BAD_INPUT) from error
    os.close(handle)
    with _s3_errors():
        blobs.download(uri, Path(name), sha256=sha256)
    os.replace(name, to)


def merge(api: Api, blobs: "Blobs", adapter: Path) -> str | None:
    """Put the tensors that were not trained beside those of a checkpoint of the others alone.

    The sha256 of where they are from; None, and nothing changes, of a checkpoint that has all.
    """
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    with safe_open(adapter, framework="np") as file:
        frozen: str | None = (file.metadata() or {}).get(FROZEN)
    if frozen is None:
        return None
    with tempfile.TemporaryDirectory(dir=adapter.parent, prefix=f".{adapter.name}.") as folder:
        base, whole = Path(folder) / "base", Path(folder) / "whole"
        fetch(blobs, records(api, frozen)[0]["uri"], frozen, base)
        save_file({**load_file(base), **load_file(adapter)}, whole)
        whole.replace(adapter)
    return frozen


def verified(api: Api, blobs: "Blobs", artifact: dict[str, Any]) -> dict[str, Any]:
    """What the log says, what lies in S3, and what comes out when the round is folded again."""
    result = {
        "federation_id": artifact["federation_id"],
        "round_number": artifact["round_number"],
        "kind": artifact["kind"],
        "uri": artifact["uri"],
        "recorded_sha256": artifact["sha256"],
        "stored_sha256": None,
        "folded_sha256": None,
        "n_updates": None,
        "seconds": None,
        "error": "",
        "is_verified": False,
    }
    place = f"{artifact['federation_id']}/{artifact['round_number']}"
    try:
        with _s3_errors():
            result["stored_sha256"] = blobs.digest(artifact["uri"]).sha256
        folded = api.post(f"/artifacts/{place}/verify", patience=_FOLD_PATIENCE)
    except Unreachable:
        raise
    except CommandFailed as failed:
        return result | {"error": str(failed)}
    digests = {artifact["sha256"], result["stored_sha256"], folded["actual"], folded["expected"]}
    return result | {
        "folded_sha256": folded["actual"],
        "n_updates": folded["n_updates"],
        "seconds": folded["seconds"],
        "is_verified": len(digests) == 1,
    }


@contextmanager
def _s3_errors() -> Iterator[None]:
    from flowerbed.events.errors import FlowerbedError

    try:
        yield
    except FlowerbedError as error:
        raise CommandFailed(str(error)) from error
