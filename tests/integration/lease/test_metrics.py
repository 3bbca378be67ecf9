"""What the lease service counts: offers, joins, and joins that failed, by reasons that it knows."""

from datetime import UTC, datetime

from prometheus_client.parser import text_string_to_metric_families

from tests.integration.lease.conftest import House


async def scraped(house: House) -> dict[tuple[str, ...], float]:
    text = (await house.internal.get("/metrics")).text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_each_join_and_each_refusal_is_counted_once(house: House) -> None:
    failed = "fl_client_joins_failed_total"
    before = await scraped(house)
    client = await house.client()
    await house.create(dataset_spec={"uris": ["local:hospital"]})
    offer = await client.offered()
    decline = f"/v1/leases/{offer['lease_id']}/decline"
    for code in ("disk-full", "disk-full", "a-word-of-its-own"):
        await client.told(decline, {"epoch": 1, "code": code, "detail": ""})
    refused = await client.claim(offer, label="factory-" + "0" * 36)
    assert refused.status_code == 403, refused.text
    label = "hospital-" + "0" * 36
    for _ in range(2):
        answer = await client.claim(offer, label=label)
        assert answer.status_code == 200, answer.text

    after = await scraped(house)

    grown = {key: after[key] - before[key] for key in after if after[key] != before.get(key)}
    assert grown["fl_leases_offered_total",] == 1
    assert grown["fl_clients_joined_total",] == 1
    assert {key[1]: n for key, n in grown.items() if key[0] == failed} == {
        "disk-full": 1,
        "other": 1,
        "dataset-not-admitted": 1,
    }


async def test_the_end_of_the_authoritys_certificate_is_told(house: House) -> None:
    found = await scraped(house)
    ends = found["fl_server_certificate_expiry_timestamp_seconds", "ca"]
    assert ends > datetime.now(UTC).timestamp()
