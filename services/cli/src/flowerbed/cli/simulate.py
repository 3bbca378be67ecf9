"""`flowerbed simulate`: a FederationSpec with virtual clients for sites, followed to its end.

The spec is the one that sites would get; only its `runtime` and `simulation` are replaced.
"""

import json
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from flowerbed.cli.calling import Asking, call, example
from flowerbed.cli.failing import CommandFailed
from flowerbed.cli.federation import SpecFile, push, read_spec, watch_to_its_end, with_app
from flowerbed.cli.output import BAD_INPUT

app = typer.Typer(add_completion=False)


@app.command(
    cls=Asking,
    epilog=example(
        "flowerbed simulate examples/digits.yaml --clients 100",
        "flowerbed simulate examples/hospital.yaml --clients 8 --data ~/hospitals",
    ),
)
def simulate(
    spec: SpecFile,
    clients: Annotated[
        int | None, typer.Option("--clients", min=1, help="How many virtual clients.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="Folder with a folder for each site, dealt out to the virtual clients."
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            help="An existing Ray cluster, HOST:PORT or ray://HOST:PORT.",
            show_default="a Ray of its own, here",
        ),
    ] = None,
    cpus_per_client: Annotated[
        float | None,
        typer.Option("--cpus-per-client", help="What Ray sets aside for a client that runs."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", help="Submission id: the same key is the same federation.", show_default="new"
        ),
    ] = None,
) -> None:
    """Run a FederationSpec with virtual clients on Ray, with progress, until it has ended.

    Starts the stack on this machine where none runs. Exit code 0 if completed, 1 if not.
    """
    said = {
        "clients": clients,
        "data": None if data is None else str(data.expanduser().absolute()),
        "ray_address": ray_address,
        "cpus_per_client": cpus_per_client,
    }
    document = simulated(read_spec(spec), {k: v for k, v in said.items() if v is not None})
    _start_stack()
    api = call().api()
    document = with_app(document, spec, lambda bundle, tenant: push(api, bundle, tenant))
    submitted = api.submit(document, key or str(uuid.uuid4()))
    watch_to_its_end(api, submitted["federation_id"])


def simulated(document: bytes, said: dict[str, Any]) -> bytes:
    """The spec with virtual clients; what is `said` goes before what it says itself.

    Raises:
        CommandFailed: it is no document, or nobody says how many clients there are.
    """
    from flowerbed.events.documents import DocumentUnreadable, read_document

    try:
        found = read_document(document)
    except DocumentUnreadable as error:
        raise CommandFailed(f"the spec cannot be read: {error}", exit_code=BAD_INPUT) from error
    if not isinstance(found, dict) or not isinstance(found.get("spec"), dict):
        return document  # the gateway says what is wrong
    kept = found["spec"].get("simulation")
    simulation = {**(kept if isinstance(kept, dict) else {}), **said}
    if "clients" not in simulation:
        message = "how many virtual clients? --clients N, or simulation.clients in the spec"
        raise CommandFailed(message, exit_code=BAD_INPUT)
    spec = {**found["spec"], "runtime": "simulation", "simulation": simulation}
    return json.dumps({**found, "spec": spec}, ensure_ascii=False).encode()


def _start_stack() -> None:
    """Where the local stack is meant and does not run."""
    if call().url is not None:
        return
    from flowerbed.embedded.control import up
    from flowerbed.embedded.progress import Progress

    began = False

    def tell(step: Progress) -> None:
        nonlocal began
        if not began:
            typer.echo("starting the stack; `flowerbed down` ends it", err=True)
        began = True

    up(call().state_dir, progress=tell)
