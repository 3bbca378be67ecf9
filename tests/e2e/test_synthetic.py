"""A model of a chosen size goes through a real federation, at sites whose data it never reads."""

from pathlib import Path
from typing import Any

import boto3
import numpy as np
from safetensors.numpy import load_file

from tests.e2e.documents import synthetic
from tests.support.field import Field

ELEMENTS = 300_001


def fetched(field: Field, uri: str, file: Path) -> dict[str, Any]:
    access = field.stack.s3
    s3 = boto3.client(
        "s3",
        endpoint_url=access.endpoint,
        aws_access_key_id=access.access_key,
        aws_secret_access_key=access.secret_key,
        region_name="us-east-1",
    )
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    s3.download_file(bucket, key, str(file))
    return load_file(file)


async def test_a_model_of_the_size_asked_for_is_trained_by_all_sites(
    field: Field, tmp_path: Path
) -> None:
    identity = field.submit(synthetic(0.2, elements=ELEMENTS, num_rounds=2))
    done = field.completed(identity)
    history = [one["data"] | {"type": one["type"]} for one in
               await field.history("aggregator", identity)]  # fmt: skip
    accepted = [
        one for one in history if one["type"] == "fl.update.accepted" and one["exchange"] == "train"
    ]
    assert [one["round_number"] for one in accepted].count(1) == 4
    assert len({one["artifact"]["sha256"] for one in accepted}) == 8, "no two updates are alike"
    assert all(one["train_seconds"] >= 0.2 for one in accepted)

    final = fetched(field, done["final"]["uri"], tmp_path / "final")
    assert sum(array.size for array in final.values()) == ELEMENTS
    assert len(final) == 4
    last = [
        fetched(field, one["artifact"]["uri"], tmp_path / "update")
        for one in accepted
        if one["round_number"] == 2
    ]
    for name, array in final.items():
        mean = np.mean([update[name] for update in last], axis=0)
        np.testing.assert_allclose(array, mean, atol=1e-5)


async def test_the_same_spec_gives_the_same_bytes(field: Field) -> None:
    document = synthetic(0.2, elements=ELEMENTS, num_rounds=2)
    finals = {field.completed(field.submit(document))["final"]["sha256"] for _ in range(2)}
    assert len(finals) == 1
