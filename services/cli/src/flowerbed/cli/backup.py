"""`flowerbed backup | restore`: a running stack into a directory, and a new stack from it."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowerbed.cli.calling import Shown, call, example
from flowerbed.cli.output import is_terminal, print_json, sized
from flowerbed.cli.stack import StateDir

if TYPE_CHECKING:
    from flowerbed.embedded.backup.manifest import Manifest

SAY_EVERY = 2.0
Folder = Annotated[Path, typer.Argument(metavar="DIR", file_okay=False, help="Of the backup.")]


def register(app: typer.Typer) -> None:
    app.command(cls=Shown, epilog=example("flowerbed backup /backup/flowerbed"))(backup)
    app.command(
        cls=Shown, epilog=example("flowerbed restore /backup/flowerbed --state-dir /srv/flowerbed")
    )(restore)


def backup(
    folder: Folder,
    state_dir: StateDir = None,
    objects: Annotated[
        bool,
        typer.Option("--objects/--no-objects", help="The artifacts' bytes, or their list alone."),
    ] = True,
    all_updates: Annotated[
        bool,
        typer.Option("--all-updates", help="Also updates of closed rounds, to fold them again."),
    ] = False,
) -> None:
    """Write the running stack to DIR. It goes on meanwhile; what DIR has is not copied again.

    DIR then holds every secret of the stack.
    """
    from flowerbed.embedded.backup.create import back_up

    began = time.monotonic()
    manifest, missing = back_up(
        state_dir,
        folder,
        with_objects=objects,
        with_updates=all_updates,
        report=_Progress(is_quiet=call().as_json).show,
    )
    for one in missing:
        typer.echo(f"not in S3, or with other bytes: {one.uri}", err=True)
    if call().as_json:
        print_json(_summary(folder, manifest) | {"missing": [one.uri for one in missing]})
        return
    typer.echo(
        f"{folder} holds the stack as it was at {manifest.taken_at}: {manifest.n_events} events,"
        f" {manifest.n_submissions} submissions not taken up,"
        f" {manifest.n_artifacts} artifacts ({sized(manifest.artifact_bytes)}"
        f"{'' if objects else ', listed alone'}); {time.monotonic() - began:.1f} s"
    )
    typer.echo("keep it as you keep the stack's secrets: it holds them")


def restore(
    folder: Folder,
    state_dir: StateDir = None,
    objects: Annotated[
        bool,
        typer.Option("--objects/--no-objects", help="Put the artifacts into S3 as well."),
    ] = True,
) -> None:
    """Make a stack from DIR in an empty state directory. Start it with `flowerbed up`."""
    from flowerbed.embedded.backup.restore import restore as put_back

    began = time.monotonic()
    progress = _Progress(is_quiet=call().as_json)
    manifest = put_back(folder, state_dir, with_objects=objects, report=progress.show)
    if call().as_json:
        print_json(_summary(folder, manifest))
        return
    typer.echo(
        f"restored as it was at {manifest.taken_at}: {manifest.n_events} events;"
        f" {time.monotonic() - began:.1f} s"
    )
    if not objects:
        typer.echo(f"put the objects of {folder / manifest.snapshot / 'artifacts.json'} into S3")
    typer.echo("start it with `flowerbed up`; what came after that moment is not in it")


def _summary(folder: Path, manifest: "Manifest") -> dict[str, Any]:
    return {
        "folder": str(folder),
        "taken_at": manifest.taken_at,
        "n_events": manifest.n_events,
        "n_submissions": manifest.n_submissions,
        "n_artifacts": manifest.n_artifacts,
        "artifact_bytes": manifest.artifact_bytes,
    }


class _Progress:
    """A line when a part is done, and now and then what a long one has come to."""

    def __init__(self, *, is_quiet: bool = False) -> None:
        self._said = time.monotonic()
        self._is_quiet = is_quiet

    def show(self, what: str, done: int, total: int) -> None:
        if self._is_quiet:
            return
        is_due = is_terminal() and time.monotonic() - self._said >= SAY_EVERY
        if done == total or is_due:
            self._said = time.monotonic()
            typer.echo(f"{what:<18} {done} of {total}")
