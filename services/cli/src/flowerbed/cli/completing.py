"""What a shell completes beside options: the ids of federations, from the gateway that is meant."""

from typing import Annotated, TypeAlias

import click
import typer

PATIENCE = 1.0
"""Seconds: a person who presses Tab does not wait longer."""
MOST = 50


def federation_ids(ctx: click.Context, incomplete: str) -> list[tuple[str, str]]:
    """The newest ids that begin so, with a word about each. Nothing where nobody answers."""
    from pathlib import Path

    from flowerbed.cli.api import connect

    given = ctx.params
    token_file, state_dir = given.get("token_file"), given.get("state_dir")
    try:
        api = connect(
            given.get("url"),
            Path(token_file) if token_file else None,
            Path(state_dir) if state_dir else None,
        )
        found = api.get("/federations", limit=MOST, patience=PATIENCE)["federations"]
    except Exception:  # whatever it is: a completion that fails is one that offers nothing
        return []
    return [
        (one["federation_id"], f"{one['name']} {one['status']}")
        for one in found
        if one["federation_id"].startswith(incomplete)
    ]


FederationId: TypeAlias = Annotated[
    str, typer.Argument(metavar="ID", show_default=False, autocompletion=federation_ids)
]
