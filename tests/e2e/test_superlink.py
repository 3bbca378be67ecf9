"""Four stock SuperNodes, a stock SuperLink: whatever is killed, the model is that of the bus."""

import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from flowerbed.aggregator.superlink import SuperLink
from flowerbed.cli.api import Api
from flowerbed.embedded.control import down, up
from flowerbed.embedded.testing import remove
from scripts.prepare_data import prepare
from tests.e2e.documents import synthetic
from tests.e2e.test_transports import (
    app,
    ran,
    test_a_client_that_fails_is_told_and_the_round_goes_on_without_it,
    test_an_app_of_ones_own_is_seeded_and_remembers_the_same,
    test_the_same_app_and_seeds_give_the_same_bytes_and_metrics,
    test_the_same_facts_are_recorded_in_the_same_number,
    test_what_carries_the_messages_is_killed_and_the_result_is_the_same,
)
from tests.support.field import Field, Site, until
from tests.support.transports import Transport, flowers, superlink

__all__ = [
    "app", "ran",
    "test_a_client_that_fails_is_told_and_the_round_goes_on_without_it",
    "test_an_app_of_ones_own_is_seeded_and_remembers_the_same",
    "test_the_same_app_and_seeds_give_the_same_bytes_and_metrics",
    "test_the_same_facts_are_recorded_in_the_same_number",
    "test_what_carries_the_messages_is_killed_and_the_result_is_the_same",
]  # fmt: skip
"""The transports' conformance suite, with the field and the transport of this module."""

pytestmark = pytest.mark.timeout(900)

LONG = 300.0


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """A stack with a SuperLink, and four hospitals that run SuperNodes."""
    scratch = tmp_path_factory.mktemp("superlink")
    names = [site["name"] for site in prepare("hospital", scratch / "data", 7)["sites"]]
    sites = [Site(name, scratch / "data" / name, scratch / name, superlink=True) for name in names]
    try:
        stack = up(scratch / "stack", superlink=True)
        made = Field(stack, Api(stack.gateway_url, stack.api_token), sites)
        starting = [site.start(made.invite("acme", "hospital")) for site in sites]
        for process in starting:
            assert process.wait(300) == 0, process.stderr and process.stderr.read()
        yield made
    finally:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Site.stop, sites))
        down(scratch / "stack")
        remove(scratch / "stack")


@pytest.fixture(scope="module")
def transport(field: Field) -> Transport:
    return superlink(field)


def spec(runtime: str) -> dict[str, Any]:
    return synthetic(3.0, elements=5001, num_rounds=2, runtime=runtime)


def kill(program: str, home: Path) -> int:
    (process,) = until(lambda: flowers(program, home), f"{program} runs")
    process.send_signal(signal.SIGKILL)
    return int(process.pid)


def trains(site: Site) -> bool:
    return bool(flowers("flwr-clientapp", site.home))


def is_at(field: Field, identity: str, number: int, status: str) -> bool:
    rounds = field.api.federation(identity)["rounds"]
    return any(one["round_number"] == number and one["status"] == status for one in rounds)


async def test_it_survives_kill_9_of_each_part_and_gives_the_bytes_of_the_bus(
    field: Field,
) -> None:
    expected = field.completed(field.submit(spec("bus")))["final"]["sha256"]
    stack, (first, *others) = field.stack, field.sites
    identity = field.submit(spec("superlink"))

    until(lambda: trains(first), "a SuperNode trains", LONG)
    kill("flower-supernode", first.home)
    until(lambda: is_at(field, identity, 2, "training"), "round 2 trains", LONG)

    until(lambda: any(map(trains, others)), "a SuperNode trains", LONG)
    kill("flower-superlink", stack.state_dir)
    until(lambda: is_at(field, identity, 2, "evaluating"), "round 2 is evaluated", LONG)

    killed = kill("flwr-serverapp", stack.state_dir)
    done = field.completed(identity, LONG)

    assert done["final"]["sha256"] == expected
    history = [one["data"] | {"type": one["type"]} for one in
               await field.history("aggregator", identity)]  # fmt: skip
    accepted = [one for one in history if one["type"] == "fl.update.accepted"]
    counts = Counter((one["exchange"], one["round_number"], one["attempt"]) for one in accepted)
    assert counts == {
        (exchange, number, 1): 4 for exchange in ("train", "evaluate") for number in (1, 2)
    }
    assert not [one for one in history if one["type"] == "fl.aggregate.failed"]

    link = SuperLink(f"localhost:{stack.port('superlink')}", stack.ca_file)
    runs = {run.attempt: run for run in link.runs() if run.federation_id == identity}
    assert sorted(runs) == [1, 2], "the run whose ServerApp was killed was taken up in another"
    until(lambda: link.nodes() == [], "no SuperNode is let in any more")
    until(lambda: not any(run.ended is None for run in link.runs()), "no run is on")
    assert not psutil.pid_exists(killed) or psutil.Process(killed).status() == "zombie"
    for site in field.sites:
        until(lambda: not flowers("flower-supernode", site.home), "its SuperNode has ended")  # noqa: B023
