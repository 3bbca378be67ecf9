"""Updates in other forms than full on real servers: decoded from their own base, or refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save_file

from flowerbed.contracts.values import ArtifactRef
from flowerbed.flower_apps.encoding import write_encoded
from flowerbed.flower_apps.forms import Form
from tests.integration.aggregator.conftest import Garden, model
from tests.integration.aggregator.test_late import LONG, tensors
from tests.integration.aggregator.test_trouble import verify

INT8, BLOCK = {"form": "int8", "block": 64}, Form("int8", 64)


def encoded(garden: Garden, form: Form, seed: int, base: ArtifactRef) -> ArtifactRef:
    """What a site trained from `base` sends."""
    here, path = garden.folder / "base-here", garden.folder / "encoded-here"
    garden.blobs.download(base.uri, here, sha256=base.sha256)
    write_encoded(form, model(seed), (here, base.sha256), path, None)
    return garden.put(path.read_bytes())


async def test_a_late_update_is_read_from_the_base_that_it_was_trained_from(
    garden: Garden,
) -> None:
    await garden.create(update=INT8)
    first = garden.base
    assert first is not None
    stream = await garden.start_round(("a", "b", "c"), goal=2, n_required=1, work_until=LONG)
    await garden.submit("a", encoded(garden, BLOCK, 1, first), form_error=0.01)
    await garden.submit("b", encoded(garden, BLOCK, 2, first), form_error=0.02)
    base = ArtifactRef.model_validate((await garden.outcome(stream))["checkpoint"])

    owed = (garden.owed("c", 1, first),)
    asked: dict[str, Any] = {"base": base, "owed": owed, "n_required": 1, "work_until": LONG}
    stream = await garden.start_round(("a",), number=2, goal=2, staleness_exponent=1.0, **asked)
    await garden.submit("c", encoded(garden, BLOCK, 3, first))
    await garden.submit("a", encoded(garden, BLOCK, 4, base), number=2)
    ended = await garden.outcome(stream)

    accepted = [data for kind, data in await garden.events(stream) if kind == "update.accepted"]
    assert {one["form"] for one in accepted} == {"int8"}
    assert all(one["artifact"]["size"] < one["full_size"] for one in accepted)
    now, then, u = tensors(garden, base), model(0), model(3)
    found = tensors(garden, ArtifactRef.model_validate(ended["checkpoint"]))
    for name, array in found.items():
        wanted = (model(4)[name] + now[name] + 0.5 * (u[name] - then[name])) / 2
        largest = max(np.abs(model(4)[name] - now[name]).max(), np.abs(u[name] - then[name]).max())
        np.testing.assert_allclose(array, wanted, atol=float(largest) / 127 + 1e-6)
    assert (await verify(garden, 2)).json()["identical"] is True


@pytest.mark.parametrize("strategy", ["krum", "fedadam", "qfedavg"])
async def test_strategies_see_what_was_decoded(garden: Garden, strategy: str) -> None:
    await garden.create(update={"form": "delta"}, strategy={"name": strategy}, min_clients=3)
    base = garden.base
    assert base is not None
    stream = await garden.start_round(("a", "b", "c"))
    for place, name in enumerate("abc", 1):
        artifact = encoded(garden, Form("delta"), place, base)
        await garden.submit(name, artifact, form_error=0.0, metrics={"train-loss": 0.5})
    ended = await garden.outcome(stream)
    assert ended["type"] == "aggregate.completed", ended
    if strategy == "krum":
        (chosen,) = ended["selected"]
        found = tensors(garden, ArtifactRef.model_validate(ended["checkpoint"]))
        for name, array in model(chosen + 1).items():
            np.testing.assert_array_equal(found[name], array)
    assert (await verify(garden, 1)).json()["identical"] is True


async def test_what_is_not_in_the_form_is_refused_and_the_round_goes_on(
    garden: Garden, tmp_path: Path
) -> None:
    await garden.create(update=INT8)
    base = garden.base
    assert base is not None
    stream = await garden.start_round(tuple("abcde"), n_required=1)
    other = ArtifactRef(uri=base.uri, sha256=base.sha256, size=base.size)
    save_file({"int8/layer.weight": np.ones(3, np.int8)}, tmp_path / "nothing")
    bent = load((garden.folder / encoded(garden, BLOCK, 1, base).sha256).read_bytes())
    bent = {name: one for name, one in bent.items() if not name.startswith("scale/")}
    save_file(bent, tmp_path / "bent", {"flowerbed.update": BLOCK.of_base(base.sha256)})
    await garden.submit("a", garden.put_model(1))
    await garden.submit("b", encoded(garden, Form("int8", 32), 1, other))
    await garden.submit("c", garden.put((tmp_path / "nothing").read_bytes()))
    await garden.submit("d", garden.put((tmp_path / "bent").read_bytes()))
    await garden.submit("e", encoded(garden, BLOCK, 5, base))
    ended = await garden.outcome(stream)
    assert [one["client_id"] for one in ended["updates"]] == ["e"]
    refused = {
        data["client_id"]: (data["code"], data["detail"])
        for kind, data in await garden.events(stream)
        if kind == "update.rejected"
    }
    assert {code for code, _ in refused.values()} == {"wrong-form"}
    assert "the file says 'no form'" in refused["a"][1]
    assert f"the file says 'int8 32 of {base.sha256}'" in refused["b"][1]
    assert "int8 has ['int8', 'scale']" in refused["d"][1]
    assert not list(garden.settings.spool_directory.rglob("*.encoded"))
