"""What sites measured is on /metrics when the exchange has closed."""

from typing import Any

from tests.integration.aggregator.conftest import Garden
from tests.support.servers import eventually


async def test_tokens_and_energy_of_accepted_updates_are_exposed(garden: Garden) -> None:
    await garden.create()
    stream = await garden.start_round(("a", "b", "c"))
    measured: list[dict[str, Any]] = [
        {"n_tokens": 400, "joules": 20.0},
        {"n_tokens": 200},
        {"joules_reason": "no-counter"},
    ]
    for place, (name, more) in enumerate(zip("abc", measured, strict=True)):
        await garden.submit(name, garden.put_model(place), train_seconds=2.0, **more)
    assert (await garden.outcome(stream))["type"] == "aggregate.completed"

    async def exposed() -> bool:
        return 'fl_tokens_per_second{exchange="train"' in (await garden.http.get("/metrics")).text

    await eventually(exposed, "the round's tokens are counted")
    told = dict(
        line.replace('exchange="train",', "").rsplit(" ", 1)
        for line in (await garden.http.get("/metrics")).text.splitlines()
        if line.startswith("fl_")
    )
    tenant = next(name for name in told if name.startswith("fl_power_watts{"))[14:]
    assert told["fl_power_watts" + tenant] == "10.0"
    assert told["fl_tokens_per_second" + tenant] == "300.0"
    assert told["fl_watts_per_token" + tenant] == "0.05"
    assert told["fl_round_joules" + tenant] == "20.0"
    assert 'fl_updates_without_energy_total{reason="no-counter"}' in told
    assert 'fl_updates_without_energy_total{reason="not-reported"}' in told
    assert garden.federation_id not in str(told) and '"a"' not in str(told)
