"""`flowerbed artifact`: checkpoints by federation or by digest: list, fetch, verify, promote."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from flowerbed.cli.api import (
    Api,
    CommandFailed,
    StateDir,
    Tenant,
    TokenFile,
    Unreachable,
    Url,
    connect,
    local_s3,
    reporting,
)
from flowerbed.cli.output import BAD_INPUT, FAILED, print_json
from flowerbed.cli.tables import Format, Output, moment, print_table, short

if TYPE_CHECKING:
    from flowerbed.artifact.blobs import Blobs

app = typer.Typer(
    help="List, fetch, verify and promote checkpoints. Exit codes: 0 done, 1 failed, 2 bad input,"
    " 3 no stack.",
    no_args_is_help=True,
    add_completion=False,
)

FederationId: TypeAlias = Annotated[str, typer.Argument(metavar="FEDERATION", show_default=False)]
Digest: TypeAlias = Annotated[str, typer.Argument(metavar="SHA256", show_default=False)]
Within: TypeAlias = Annotated[
    str | None,
    typer.Option("--federation", help="Where the same bytes are recorded in several."),
]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_FOLD_PATIENCE = 900.0


@app.command("list")
def list_artifacts(
    federation_id: FederationId,
    output: Output = Format.table,
    url: Url = None,
    token_file: TokenFile = None,
    state_dir: StateDir = None,
) -> None:
    """Everything that a federation has made: base, checkpoints, the strategy's own state."""
    with reporting(as_json=output is Format.json):
        found = connect(url, token_file, state_dir).federation(federation_id)["artifacts"]
        if output is Format.json:
            print_json(found)
        else:
            _print_artifacts(found)


@app.command()
def show(
    sha256: Digest,
    tenant: Tenant = None,
    output: Output = Format.table,
    url: Url = None,
    token_file: TokenFile = None,
    state_dir: StateDir = None,
) -> None:
    """Every record of one artifact: the same bytes may have been made more than once."""
    with reporting(as_json=output is Format.json):
        records = _records(connect(url, token_file, state_dir), sha256, tenant)
        if output is Format.json:
            print_json(records)
        else:
            _print_artifacts(records)
            typer.echo(records[0]["uri"])


@app.command()
def lineage(
    federation_id: FederationId,
    output: Output = Format.table,
    url: Url = None,
    token_file: TokenFile = None,
    state_dir: StateDir = None,
) -> None:
    """From the base to the newest checkpoint, and whose updates are in each."""
    with reporting(as_json=output is Format.json):
        found = connect(url, token_file, state_dir).get(
            f"/federations/{federation_id}/lineage", tries=2
        )
        if output is Format.json:
            print_json(found)
        else:
            rows = [
                (
                    one["round_number"], one["kind"], short(one["sha256"]),
                    [short(parent) for parent in one["parents"]],
                    [f"{update['client_id']} x{update['weight']}" for update in one["folded"]],
                )
                for one in found["checkpoints"]
            ]  # fmt: skip
            print_table(("round", "kind", "sha256", "made from", "updates (weight)"), rows)
        if not found["checkpoints"]:
            raise CommandFailed(f"federation {federation_id} has no checkpoint yet")
        if not found["is_complete"]:
            raise CommandFailed(f"the lineage of {federation_id} has a gap")


@app.command()
def download(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FEDERATION|SHA256", help="A federation's final checkpoint, or any artifact."
        ),
    ],
    to: Annotated[Path, typer.Option("--to", help="The file to write.")],
    state_dir: StateDir = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Fetch an artifact from S3; the file appears only if its sha256 is right."""
    with reporting():
        uri, sha256 = _meant(connect(url, token_file, state_dir), what)
        _fetch(_blobs(state_dir), uri, sha256, to)
        typer.echo(f"{to}  sha256 {sha256}")


@app.command()
def verify(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FEDERATION|FEDERATION/ROUND|SHA256",
            help="All checkpoints of a federation, that of one round, or one by its digest.",
        ),
    ],
    output: Output = Format.table,
    url: Url = None,
    token_file: TokenFile = None,
    state_dir: StateDir = None,
) -> None:
    """Fold each round again from the log and hash each object again: the bytes must be the same.

    Exit code 1 if anything differs, or if there is nothing to verify.
    """
    with reporting(as_json=output is Format.json):
        api = connect(url, token_file, state_dir)
        checkpoints = _chosen(api, what)
        blobs = _blobs(state_dir)
        results = [_verified(api, blobs, one) for one in checkpoints]
        if output is Format.json:
            print_json(results)
        else:
            _print_results(results)
        if not all(one["is_verified"] for one in results):
            raise typer.Exit(FAILED)


@app.command()
def promote(
    sha256: Digest,
    channel: Annotated[str, typer.Option("--channel", help="e.g. stable, beta.")] = "stable",
    federation: Within = None,
    url: Url = None,
    token_file: TokenFile = None,
    state_dir: StateDir = None,
) -> None:
    """Make an artifact its federation's current one of a channel."""
    with reporting():
        body = {"channel": channel, "federation_id": federation}
        connect(url, token_file, state_dir).post(f"/artifacts/{_digest(sha256)}/promote", body)
        typer.echo(f"{sha256} is now {channel}")


@app.command()
def revoke(
    sha256: Digest,
    reason: Annotated[str, typer.Option("--reason", help="Kept in the history.")] = "",
    federation: Within = None,
    url: Url = None,
    token_file: TokenFile = None,
    state_dir: StateDir = None,
) -> None:
    """Say that nobody should use an artifact any more; its bytes and history stay."""
    with reporting():
        body = {"reason": reason, "federation_id": federation}
        connect(url, token_file, state_dir).post(f"/artifacts/{_digest(sha256)}/revoke", body)
        typer.echo(f"{sha256} revoked")


# --- which ones -------------------------------------------------------------


def _digest(text: str) -> str:
    if _DIGEST.fullmatch(text) is None:
        raise CommandFailed(f"{text!r} is no sha256 of 64 hex digits", exit_code=BAD_INPUT)
    return text


def _records(api: Api, sha256: str, tenant: str | None = None) -> list[dict[str, Any]]:
    found = api.get(f"/artifacts/{_digest(sha256)}", tenant=tenant, tries=2)
    records: list[dict[str, Any]] = found["records"]
    return records


def _meant(api: Api, what: str) -> tuple[str, str]:
    """URI and digest of an artifact, or of a federation's final checkpoint."""
    if _DIGEST.fullmatch(what):
        record = _records(api, what)[0]
        return record["uri"], record["sha256"]
    federation = api.federation(what)
    final = federation["final"]
    if final is None:
        raise CommandFailed(f"federation {what} is {federation['status']}: no final checkpoint")
    return final["uri"], final["sha256"]


def _chosen(api: Api, what: str) -> list[dict[str, Any]]:
    """The base and checkpoints that `what` names, by round."""
    if _DIGEST.fullmatch(what):
        found = _records(api, what)
    else:
        identity, _, number = what.partition("/")
        if number and not number.isdecimal():
            raise CommandFailed(f"{number!r} is no round's number", exit_code=BAD_INPUT)
        found = api.federation(identity)["artifacts"]
        if number:
            found = [one for one in found if one["round_number"] == int(number)]
    chosen = [one for one in found if one["kind"] != "state"]
    if not chosen:
        raise CommandFailed(f"{what} has no checkpoint to verify")
    return sorted(chosen, key=lambda one: (one["federation_id"], one["round_number"]))


# --- bytes ------------------------------------------------------------------


def _blobs(state_dir: Path | None) -> "Blobs":
    from flowerbed.artifact.blobs import Blobs

    s3 = local_s3(state_dir)
    return Blobs(s3.endpoint, s3.access_key, s3.secret_key)


def _fetch(blobs: "Blobs", uri: str, sha256: str, to: Path) -> None:
    """Beside the target first, so that a wrong or half file never has its name."""
    try:
        handle, name = tempfile.mkstemp(dir=to.parent, prefix=f".{to.name}.")
    except OSError as error:
        raise CommandFailed(f"--to {to}: {error.strerror}", exit_code=BAD_INPUT) from error
    os.close(handle)
    with _s3_errors():
        blobs.download(uri, Path(name), sha256=sha256)
    os.replace(name, to)


def _verified(api: Api, blobs: "Blobs", artifact: dict[str, Any]) -> dict[str, Any]:
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


# --- tables -----------------------------------------------------------------


def _print_artifacts(artifacts: list[dict[str, Any]]) -> None:
    rows = [
        (
            one["round_number"], one["kind"], one["sha256"], one["size"], one["channels"],
            "revoked" if one["revoked_at"] else "", moment(one["recorded_at"]),
        )
        for one in artifacts
    ]  # fmt: skip
    print_table(("round", "kind", "sha256", "bytes", "channels", "", "recorded"), rows)


def _print_results(results: list[dict[str, Any]]) -> None:
    rows = [
        (
            one["round_number"], one["kind"], short(one["recorded_sha256"]),
            _same(one["stored_sha256"], one), _same(one["folded_sha256"], one),
            one["n_updates"], one["seconds"], one["error"],
        )
        for one in results
    ]  # fmt: skip
    columns = ("round", "kind", "recorded", "in S3", "folded again", "updates", "seconds", "")
    print_table(columns, rows)
    n_verified = sum(one["is_verified"] for one in results)
    typer.echo(f"{n_verified} of {len(results)} verified")


def _same(sha256: str | None, result: dict[str, Any]) -> str:
    if sha256 is None:
        return "not known"
    is_same = sha256 == result["recorded_sha256"]
    return "same" if is_same else f"DIFFERS: {short(sha256)}"
