"""How many of each, on which ports, told to whom."""

import json
from pathlib import Path

import pytest

from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded.caddy import render as render_caddy
from flowerbed.embedded.control import up
from flowerbed.embedded.errors import BadInput
from flowerbed.embedded.layout import Layout
from flowerbed.embedded.leftovers import stop_groups
from flowerbed.embedded.nats_server import render as render_nats
from flowerbed.embedded.ports import ensure_ports
from flowerbed.embedded.record import ComponentRecord
from flowerbed.embedded.services import settings
from flowerbed.embedded.setup import Setup
from flowerbed.embedded.shape import Links, Shape, from_json, read_shape, to_json, wanted_shape
from flowerbed.embedded.stack import Stack


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "state")
    layout.make()
    return layout


def test_shape_is_kept_until_another_is_asked_for(layout: Layout) -> None:
    links: Links = {"nats": [1, 2], "postgres": 3}
    wanted = wanted_shape(layout, replicas=2, nats_nodes=3, links=links)
    Setup.prepare(layout, wanted)

    assert wanted.links == {"nats": (1, 2), "postgres": (3,)}
    assert wanted_shape(layout) == read_shape(layout) == wanted == from_json(to_json(wanted))
    assert wanted_shape(layout, replicas=1, links={}) == Shape(replicas=1, nats_nodes=3)


@pytest.mark.parametrize(
    ("replicas", "nats_nodes", "links", "why"),
    [
        (0, 1, {}, "1 to 8 replicas, not 0"),
        (9, 1, {}, "1 to 8 replicas, not 9"),
        (1, 2, {}, "1 or 3 NATS nodes, not 2"),
        (1, 1, {"gateway": 1}, "link 'gateway' is none of"),
        (1, 1, {"nats": (1, 2)}, "link 'nats' has 1 to 1 ports, not 2"),
    ],
)
def test_impossible_shape_is_bad_input(
    layout: Layout, replicas: int, nats_nodes: int, links: dict[str, int], why: str
) -> None:
    with pytest.raises(BadInput, match=why):
        up(layout.root, replicas=replicas, nats_nodes=nats_nodes, links=links)


def test_streams_cannot_move_to_another_number_of_servers(layout: Layout) -> None:
    (layout.nats / "jetstream").mkdir()
    with pytest.raises(BadInput, match="were made with --nats-nodes 1"):
        wanted_shape(layout, nats_nodes=3)


def test_more_replicas_leave_the_ports_of_the_first_alone(layout: Layout) -> None:
    first = ensure_ports(layout)
    more = ensure_ports(layout, Shape(replicas=3))

    assert first.items() <= more.items()
    added = {f"{service}-{number}" for service in SERVICES for number in (2, 3)}
    assert more.keys() - first.keys() == added


def test_replicas_share_nothing_on_this_machine_but_their_accounts(layout: Layout) -> None:
    setup = Setup.prepare(layout, Shape(replicas=2))
    own = {
        "lease": {"http_port", "client_socket", "enrol_socket"},
        "aggregator": {"http_port", "spool_directory"},
    }
    for service in SERVICES:
        one, two = settings(setup, service), settings(setup, f"{service}-2")
        different = {name for name in one if one[name] != two[name]}
        assert different == own.get(service, {"http_port"})
    urls = [f"http://{setup.address(name)}" for name in ("lease", "lease-2")]
    assert settings(setup, "gateway-2")["lease_url"] == urls


def test_links_are_told_to_services_and_clients_and_the_servers_keep_their_ports(
    layout: Layout,
) -> None:
    links = {"postgres": (1,), "nats": (2, 3, 4), "s3": (5,), "client_door": (6,)}
    setup = Setup.prepare(layout, Shape(nats_nodes=3, links=links))
    told, stack = settings(setup, "lease"), Stack(layout.root)

    assert told["database_port"] == 1
    assert told["nats_url"] == "nats://127.0.0.1:2,nats://127.0.0.1:3,nats://127.0.0.1:4"
    assert told["s3_endpoint"] == "http://127.0.0.1:5"
    assert told["client_url"] == stack.client_url == "https://127.0.0.1:6"
    for name in ("postgres", "nats", "s3", "client_door"):
        assert stack.port(name) == setup.ports[name] > 6


def test_nodes_of_a_cluster_reach_each_other_with_a_password_of_their_own(layout: Layout) -> None:
    setup = Setup.prepare(layout, Shape(nats_nodes=3))
    lines = dict(line.split(": ", 1) for line in render_nats(setup, "nats-2").splitlines())
    cluster = json.loads(lines["cluster"])
    password = setup.credentials.nats["cluster"]

    assert json.loads(lines["listen"]) == setup.address("nats-2")
    assert json.loads(lines["jetstream"])["sync_interval"] == "always"
    assert json.loads(lines["jetstream"])["store_dir"] == str(layout.root / "nats-2")
    assert cluster["listen"] == setup.address("nats-2_route")
    assert cluster["authorization"]["password"] == password
    assert cluster["routes"] == [
        f"nats-route://cluster:{password}@{setup.address(other)}"
        for other in ("nats_route", "nats-3_route")
    ]
    assert len(Stack(layout.root).nats_url.split(",")) == 3


def test_one_server_is_no_cluster(layout: Layout) -> None:
    assert "cluster:" not in render_nats(Setup.prepare(layout))


def test_only_several_replicas_are_asked_for_their_health(layout: Layout) -> None:
    one = render_caddy(Setup.prepare(layout))
    three = render_caddy(Setup.prepare(layout, Shape(replicas=3)))

    assert "health_uri" not in one
    assert "response_header_timeout" not in one  # there is no other to ask
    assert three.count("health_uri") == 6
    for name in ("lease-clients.sock", "lease-2-clients.sock", "lease-3-clients.sock"):
        assert name in three


def test_replicas_stop_with_their_kind() -> None:
    kinds = {"nats-3": "server", "lease-2": "service", "postgres": "server", "caddy": "server"}
    components = tuple(
        ComponentRecord(name=name, kind=kind, state="ready", address="")  # type: ignore[arg-type]
        for name, kind in kinds.items()
    )
    groups = [[item.name for item in group] for group in stop_groups(components)]
    assert groups == [["lease-2"], ["caddy"], ["nats-3"], ["postgres"]]
