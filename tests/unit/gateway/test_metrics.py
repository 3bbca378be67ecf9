"""However many tenants there are, the gateway names fifty of them to Prometheus."""

from flowerbed.gateway.metrics import MOST_TENANTS, OTHERS, soonest


def test_tenants_in_need_are_named_and_all_others_share_one() -> None:
    values = {f"tenant-{number:03}": float(1000 - number) for number in range(200)}
    found = soonest(values)
    assert len(found) == MOST_TENANTS + 1
    assert found["tenant-199"] == 801.0, "the longest without progress has a name"
    assert found[OTHERS] == 801.0 + MOST_TENANTS, "the worst of those without one"


def test_a_few_tenants_are_all_named() -> None:
    assert soonest({"acme": 2.0, "rival": 1.0}) == {"acme": 2.0, "rival": 1.0}
    assert soonest({}) == {}
