"""A buffered federation (FedBuff) on a real stack: an update counts once or is refused once."""

from collections import Counter
from typing import Any

from tests.e2e.documents import hospital
from tests.support.field import Field
from tests.support.servers import eventually

ANSWERS = ("fl.update.accepted", "fl.update.rejected")


def trained(history: list[dict[str, Any]], *types: str) -> list[dict[str, Any]]:
    """The facts of these types about training."""
    return [one for one in history if one["type"] in types and one["data"]["exchange"] == "train"]


async def test_every_update_counts_once_or_is_refused_once_and_folds_again_to_the_same_bytes(
    field: Field,
) -> None:
    policy = {"mode": "buffered", "buffer_size": 3}
    identity = field.submit(hospital(num_rounds=4, round_policy=policy))
    field.completed(identity)

    async def all_answered() -> bool:
        """Also what was reported at the very end, which no round counts any more."""
        reports = trained(await field.history("lease", identity), "fl.update.submitted")
        answers = trained(await field.history("aggregator", identity), *ANSWERS)
        return {w["data"]["work_id"] for w in reports} == {w["data"]["work_id"] for w in answers}

    await eventually(all_answered, "every report has its answer", timeout=30)
    history = await field.history("aggregator", identity)
    answers = trained(history, *ANSWERS)
    work = {(one["stream"], one["data"]["place"]): one["data"]["work_id"] for one in answers}
    counted, n_late = Counter[str](), 0
    for aggregate in trained(history, "fl.aggregate.completed"):
        updates = aggregate["data"]["updates"]
        assert len(updates) == policy["buffer_size"]
        counted.update(work[aggregate["stream"], one["place"]] for one in updates)
        n_late += sum(one["staleness"] > 0 for one in updates)
    assert n_late > 0, "four train, three close a round: the fourth is late"
    assert max(counted.values()) == 1
    assert max(Counter(one["data"]["work_id"] for one in answers).values()) == 1

    for number in range(5):
        again = field.api.post(f"/artifacts/{identity}/{number}/verify", patience=60)
        assert again["identical"], number
