"""How large a stack is, and by which ports its parts reach each other: chosen once, then kept."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TypeAlias

from flowerbed.embedded.errors import BadInput
from flowerbed.embedded.layout import Layout, write_private_json

MOST_REPLICAS = 8
NATS_SIZES = (1, 3)
LINKED = ("postgres", "nats", "s3", "client_door")
"""What services and clients can be made to reach through another port."""

Links: TypeAlias = Mapping[str, int | list[int] | tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    replicas: int = 1
    """Processes of each service."""
    nats_nodes: int = 1
    links: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Ports that services and clients are told in place of a server's own."""
    observability: bool = False
    """Prometheus and Alertmanager run beside the services."""
    superlink: bool = False
    """Flower's SuperLink runs beside the services, for federations with `runtime: superlink`."""


def numbered(name: str, count: int) -> tuple[str, ...]:
    """Names of the components of one kind: `lease`, `lease-2`, `lease-3`."""
    return (name, *(f"{name}-{number}" for number in range(2, count + 1)))


def base_of(component: str) -> str:
    """`lease` of `lease-2`."""
    return component.partition("-")[0]


def read_shape(layout: Layout) -> Shape:
    path = layout.shape
    return from_json(path.read_text()) if path.exists() else Shape()


def keep_shape(layout: Layout, shape: Shape) -> None:
    if shape != read_shape(layout):
        write_private_json(layout.shape, _content(shape))


def to_json(shape: Shape) -> str:
    return json.dumps(_content(shape))


def _content(shape: Shape) -> dict[str, object]:
    """An earlier release can read it, unless it holds what that one does not have."""
    content = asdict(shape)
    for later in ("observability", "superlink"):
        if not content[later]:
            del content[later]
    return content


def from_json(text: str) -> Shape:
    content = json.loads(text)
    links = {name: tuple(ports) for name, ports in content.pop("links", {}).items()}
    return Shape(**content, links=links)


def wanted_shape(
    layout: Layout,
    replicas: int | None = None,
    nats_nodes: int | None = None,
    links: Links | None = None,
    observability: bool | None = None,
    superlink: bool | None = None,
) -> Shape:
    """The kept shape with what is asked for in its place; None keeps.

    Raises:
        BadInput: no stack can have that shape, or not this one any more.
    """
    kept = read_shape(layout)
    shape = Shape(
        replicas=kept.replicas if replicas is None else replicas,
        nats_nodes=kept.nats_nodes if nats_nodes is None else nats_nodes,
        links=kept.links if links is None else _ports(links),
        observability=kept.observability if observability is None else observability,
        superlink=kept.superlink if superlink is None else superlink,
    )
    if not 1 <= shape.replicas <= MOST_REPLICAS:
        raise BadInput(f"a stack has 1 to {MOST_REPLICAS} replicas, not {shape.replicas}")
    if shape.nats_nodes not in NATS_SIZES:
        sizes = " or ".join(map(str, NATS_SIZES))
        raise BadInput(f"a stack has {sizes} NATS nodes, not {shape.nats_nodes}")
    if shape.nats_nodes != kept.nats_nodes and (layout.nats / "jetstream").exists():
        raise BadInput(
            f"the streams in {layout.nats} were made with --nats-nodes {kept.nats_nodes}"
            " and cannot change it; use another state directory"
        )
    _refuse_impossible_links(shape)
    return shape


def _ports(links: Links) -> dict[str, tuple[int, ...]]:
    return {
        name: (ports,) if isinstance(ports, int) else tuple(ports) for name, ports in links.items()
    }


def _refuse_impossible_links(shape: Shape) -> None:
    for name, ports in shape.links.items():
        if name not in LINKED:
            raise BadInput(f"link {name!r} is none of {', '.join(LINKED)}")
        most = shape.nats_nodes if name == "nats" else 1
        if not 1 <= len(ports) <= most:
            raise BadInput(f"link {name!r} has 1 to {most} ports, not {len(ports)}")
