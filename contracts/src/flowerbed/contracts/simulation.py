"""Virtual clients: how many a federation has, and where they run."""

from typing import Annotated

from pydantic import Field, StringConstraints

from flowerbed.contracts.section import Section

MOST_CLIENTS = 10_000
LOCAL = "local"


class Simulation(Section):
    """`clients` virtual clients that Ray runs, each a partition of the data.

    `ray_address`: `local` for a Ray of its own on the control plane's machine, or an existing
    cluster: `host:port` of one that this machine belongs to, `ray://host:port` of any.
    `data`: a folder on that machine with a folder for each site, dealt out in the order of their
    names, again from the first when there are more clients. An app that makes its partitions from
    `partition-id` and `num-partitions` needs none.
    `cpus_per_client`, `gpus_per_client`: what Ray sets aside for a client that runs; so many run at
    the same time as there is room for.
    """

    clients: Annotated[int, Field(ge=1, le=MOST_CLIENTS, strict=True)]
    ray_address: Annotated[
        str, StringConstraints(pattern=r"^(local|(ray://)?[A-Za-z0-9._-]{1,253}:[0-9]{1,5})$")
    ] = LOCAL
    data: Annotated[str, StringConstraints(pattern=r"^/[^\x00-\x1f]{0,1000}$")] | None = None
    cpus_per_client: Annotated[float, Field(gt=0, le=1024, strict=True)] = 1.0
    gpus_per_client: Annotated[float, Field(ge=0, le=1024, strict=True)] = 0.0


def client_name(partition: int) -> str:
    """The virtual client of that partition."""
    return f"sim-{partition:05d}"
