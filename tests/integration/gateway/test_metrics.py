"""What the gateway tells Prometheus of federations, leases and clients."""

from prometheus_client.parser import text_string_to_metric_families

from flowerbed.contracts.federation import FederationCancelled, FederationPaused
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.story import FED, NOON, TENANT, Story, document, whole_story

Samples = dict[tuple[str, ...], float]


async def scraped(gateway: Gateway) -> Samples:
    """By the name and the values of the labels, in the order of their names."""
    text = (await gateway.http.get("/metrics")).text
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


PROGRESS = "fl_federation_last_progress_timestamp_seconds"


def until_started(story: Story) -> int:
    """How much of the story is told when the federation has started."""
    return next(n for n, one in enumerate(story.told, 1) if one.type == "fl.federation.started")


async def test_progress_is_what_moved_a_federation_on_and_ends_with_it(gateway: Gateway) -> None:
    story = whole_story()
    n_told = until_started(story)
    await gateway.hear(story.told[:n_told])

    found = await scraped(gateway)

    started_at = story.told[n_told - 1].recorded_at.timestamp()
    assert found[PROGRESS, TENANT] == started_at
    assert found["fl_federations", "running"] == 1 and found["fl_federations", "failed"] == 0
    assert found["fl_leases", "joined"] == 3
    assert found["fl_clients", "enrolled"] == 3 and found["fl_clients", "invited"] == 1

    later = Story(story.told[:n_told], dict.fromkeys(story.versions, 50))
    paused = FederationPaused(federation_id=FED, reason="lunch", expires_at=NOON)
    later.versions[f"federation-{FED}"] = story.told[n_told - 1].version
    later.tell(f"federation-{FED}", paused)
    await gateway.hear(later.told[n_told:])
    found = await scraped(gateway)
    assert (PROGRESS, TENANT) not in found, "nobody waits for a paused federation"
    assert found["fl_leases", "joined"] == 3

    later.tell(f"federation-{FED}", FederationCancelled(federation_id=FED))
    await gateway.hear(later.told[n_told + 1 :])
    found = await scraped(gateway)
    assert found["fl_federations", "cancelled"] == 1 and found["fl_leases", "joined"] == 0


async def test_a_submission_that_nobody_takes_up_stands_still(gateway: Gateway) -> None:
    answer = await gateway.http.post("/federations", json=document("quiet"))
    assert answer.status_code == 202, answer.text

    found = await scraped(gateway)

    assert found["fl_federations", "submitted"] == 1
    assert found[PROGRESS, "quiet"] > NOON.timestamp()


async def test_certificates_are_told_by_the_first_that_ends_and_by_those_that_have(
    gateway: Gateway,
) -> None:
    story = whole_story()  # of an earlier day: its certificates have ended
    await gateway.hear(story.told[: until_started(story)])

    found = await scraped(gateway)

    assert found["fl_client_certificates_expired",] == 3
    assert not [key for key in found if "certificate_expiry" in key[0]]


async def test_dead_letters_and_roles_are_told_by_every_service(gateway: Gateway) -> None:
    found = await scraped(gateway)
    assert found["dead_letters_waiting", "gateway-lease", "gateway"] == 0
    roles = {key[1:]: value for key, value in found.items() if key[0] == "flowerbed_leads"}
    assert set(roles.values()) == {1.0}, "alone, it holds all of its roles"
    assert ("consumer gateway-lease", "gateway") in roles
