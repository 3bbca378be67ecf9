"""`flowerbed artifact`: checkpoints by federation or by digest: list, fetch, verify, promote."""

import sys
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from flowerbed.cli.api import Tenant
from flowerbed.cli.calling import Asking, call, example
from flowerbed.cli.checkpoints import chosen, digest_of, fetch, meant, merge, records, verified
from flowerbed.cli.completing import federation_ids
from flowerbed.cli.failing import CommandFailed
from flowerbed.cli.files import fetched, left
from flowerbed.cli.output import FAILED, print_json
from flowerbed.cli.tables import moment, print_table, short

app = typer.Typer(
    help="List, fetch, verify and promote checkpoints.", no_args_is_help=True, add_completion=False
)

FED = "fed-305aa300bdb40319"
SHA = "41ba8afef1a7" + "0" * 52
"""In examples."""

FederationId: TypeAlias = Annotated[
    str, typer.Argument(metavar="FEDERATION", show_default=False, autocompletion=federation_ids)
]
Digest: TypeAlias = Annotated[str, typer.Argument(metavar="SHA256", show_default=False)]
Within: TypeAlias = Annotated[
    str | None,
    typer.Option("--federation", help="Where the same bytes are recorded in several."),
]


@app.command("list", cls=Asking, epilog=example(f"flowerbed artifact list {FED}"))
def list_artifacts(federation_id: FederationId) -> None:
    """Everything that a federation has made: base, checkpoints, the strategy's own state."""
    found = call().api().federation(federation_id)["artifacts"]
    if call().as_json:
        print_json(found)
    else:
        _print_artifacts(found)


@app.command(cls=Asking, epilog=example(f"flowerbed artifact show {SHA}"))
def show(sha256: Digest, tenant: Tenant = None) -> None:
    """Every record of one artifact: the same bytes may have been made more than once."""
    found = records(call().api(), sha256, tenant)
    if call().as_json:
        print_json(found)
    else:
        _print_artifacts(found)
        typer.echo(found[0]["uri"])


@app.command(cls=Asking, epilog=example(f"flowerbed artifact lineage {FED}"))
def lineage(federation_id: FederationId) -> None:
    """From the base to the newest checkpoint, and whose updates are in each."""
    found = call().api().get(f"/federations/{federation_id}/lineage", tries=2)
    if call().as_json:
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


@app.command(
    cls=Asking, epilog=example(f"flowerbed artifact download {FED} --to model.safetensors")
)
def download(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FEDERATION|SHA256", help="A federation's final checkpoint, or one artifact."
        ),
    ],
    to: Annotated[Path, typer.Option("--to", dir_okay=False, help="Where to write the file.")],
    merged: Annotated[
        bool,
        typer.Option("--merged", help="With the tensors that were not trained, from the base."),
    ] = False,
) -> None:
    """Fetch an artifact from S3; the file appears only if its sha256 is right."""
    api, blobs = call().api(), call().blobs()
    uri, sha256 = meant(api, what)
    fetch(blobs, uri, sha256, to)
    frozen = merge(api, blobs, to) if merged else None
    if call().as_json:
        print_json({"file": str(to), "uri": uri, "sha256": sha256, "merged_with": frozen})
    else:
        typer.echo(f"{to}  sha256 {sha256}{f' merged with {frozen}' if frozen else ''}")


@app.command(cls=Asking, epilog=example(f"flowerbed artifact files {FED} --to results"))
def files(
    federation_id: FederationId,
    to: Annotated[
        Path | None,
        typer.Option("--to", file_okay=False, help="Fetch them from S3 into this folder."),
    ] = None,
) -> None:
    """What a whole ServerApp has left in its folder: plots, tables, a model of its own format."""
    found = left(call().api(), federation_id)
    if call().as_json:
        print_json(found)
    else:
        print_table(
            ("name", "bytes", "sha256"),
            [(one["name"], one["size"], one["sha256"]) for one in found],
        )
    if to is not None:
        for path in fetched(call().blobs(), found, to):
            typer.echo(f"{path}", err=True)


@app.command(cls=Asking, epilog=example(f"flowerbed artifact verify {FED} --watch"))
def verify(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FEDERATION|FEDERATION/ROUND|SHA256",
            help="All checkpoints of a federation, that of one round, or one by its digest.",
            autocompletion=federation_ids,
        ),
    ],
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Say on stderr how far it has come.")
    ] = False,
) -> None:
    """Fold each round again from the log and hash each object again: the bytes must be the same.

    Exit code 1 if anything differs, or if there is nothing to verify.
    """
    api, blobs = call().api(), call().blobs()
    checkpoints = chosen(api, what)
    results = []
    for place, one in enumerate(checkpoints, 1):
        results.append(verified(api, blobs, one))
        if watch or sys.stderr.isatty():
            outcome = "same" if results[-1]["is_verified"] else "NOT the same"
            place_of = f"{one['federation_id']}/{one['round_number']}"
            typer.echo(f"{place} of {len(checkpoints)}  {place_of}: {outcome}", err=True)
    if call().as_json:
        print_json(results)
    else:
        _print_results(results)
    if not all(one["is_verified"] for one in results):
        raise typer.Exit(FAILED)


@app.command(cls=Asking, epilog=example(f"flowerbed artifact promote {SHA} --channel stable"))
def promote(
    sha256: Digest,
    channel: Annotated[str, typer.Option("--channel", help="e.g. stable, beta.")] = "stable",
    federation: Within = None,
) -> None:
    """Make an artifact its federation's current one of a channel."""
    body = {"channel": channel, "federation_id": federation}
    answer = call().api().post(f"/artifacts/{digest_of(sha256)}/promote", body)
    _confirm(answer, f"{sha256} is now {channel}")


@app.command(cls=Asking, epilog=example(f"flowerbed artifact revoke {SHA} --reason poisoned"))
def revoke(
    sha256: Digest,
    reason: Annotated[str, typer.Option("--reason", help="Kept in the history.")] = "",
    federation: Within = None,
) -> None:
    """Say that nobody should use an artifact any more; its bytes and history stay."""
    body = {"reason": reason, "federation_id": federation}
    answer = call().api().post(f"/artifacts/{digest_of(sha256)}/revoke", body)
    _confirm(answer, f"{sha256} revoked")


# --- tables -----------------------------------------------------------------


def _confirm(answer: Any, words: str) -> None:
    if call().as_json:
        print_json(answer)
    else:
        typer.echo(words)


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
