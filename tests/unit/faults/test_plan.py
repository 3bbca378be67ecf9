"""A seed gives one plan, and the crash matrix covers whatever the topology says."""

from itertools import islice

import pytest

from flowerbed.contracts.topology import STREAMS
from scripts.faults import plan
from scripts.faults.ground import Shape
from scripts.faults.matrix import met, points, sample, spread

SITES = ("hungary", "cleveland")
ALL = plan.targets(Shape(replicas=2, nats_nodes=3), SITES)


def test_a_seed_gives_the_same_plan_again_and_another_seed_another() -> None:
    first = list(islice(plan.faults(3, ALL, SITES), 100))
    assert first == list(islice(plan.faults(3, ALL, SITES), 100))
    assert first != list(islice(plan.faults(4, ALL, SITES), 100))
    assert plan.federations(3, 20) == plan.federations(3, 20)


def test_every_fault_comes_once_before_any_comes_again() -> None:
    turn = list(islice(plan.faults(3, ALL, SITES), len(ALL)))
    assert len({(f.kind, f.target.split("-")[0] if "-h" in f.target else f.target) for f in turn})
    assert sorted(f.kind for f in turn) == sorted(kind for kind, _ in ALL)


def test_replicas_and_nats_nodes_are_hurt_too() -> None:
    names = {target for _, target in ALL}
    assert {"lease", "lease-2", "nats", "nats-3"} <= names
    assert "lease-2" not in {target for _, target in plan.targets(Shape(), SITES)}


def test_only_names_kinds_targets_or_both() -> None:
    assert plan.chosen(ALL, ["kill:lease"]) == [("kill", "lease")]
    assert {kind for kind, _ in plan.chosen(ALL, ["cut"])} == {"cut"}
    assert {target for _, target in plan.chosen(ALL, ["s3"])} == {"s3"}
    with pytest.raises(ValueError, match="explode"):
        plan.chosen(ALL, ["explode"])


def test_each_event_type_has_its_points_from_the_topology() -> None:
    found = points()
    assert len(found) == len(set(found))
    for stream in STREAMS:
        for event_type in stream.types:
            moments = {p.point for p in found if p.event_type == event_type}
            assert {"commit-before", "commit-after", "publish-before", "publish-after"} <= moments
            assert "consume-after" in moments  # the gateway hears of everything


def test_a_sample_is_seeded_and_a_spread_keeps_every_point() -> None:
    among = met(points(), {"fl.round.started"})
    assert sample(1, 4, among) == sample(1, 4, among)
    assert sorted(map(str, spread(among))) == sorted(map(str, among))
