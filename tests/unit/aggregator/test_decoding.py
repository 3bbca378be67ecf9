"""An encoded update becomes the file that a full one would be, or is refused with a reason."""

import hashlib
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from flowerbed.aggregator.decoding import decode_file, pick
from flowerbed.aggregator.tensors import stamp
from flowerbed.contracts.forms import DEFAULTS, KNOWN, UpdateForm
from flowerbed.flower_apps.encoding import NotOfTheBase, write_encoded
from flowerbed.flower_apps.form_bits import BadEncoding
from flowerbed.flower_apps.forms import KEY, NAMES, Form
from tests.support.models import Model, model

SHA = "a" * 64
FORMS = [Form("delta"), Form("bfloat16"), Form("int8", 64), Form("top_k", fraction=0.1)]


def written(form: Form, folder: Path, *, left: Path | None = None) -> tuple[Path, Path]:
    base, path = folder / "base", folder / "encoded"
    save_file(model(1), base)
    write_encoded(form, model(2), (base, SHA), path, left)
    return base, path


def decoded(form: Form, encoded: Path, base: Path) -> Model:
    path = encoded.with_name("decoded.safetensors")
    decode_file(form, encoded, base, SHA, path)
    return load_file(path)


def test_the_spec_and_the_codec_know_the_same_forms() -> None:
    assert {"full", *NAMES} == KNOWN
    for name in NAMES:
        spec = UpdateForm.model_validate({"form": name})
        form = Form.named(spec.form, spec.block, spec.fraction)
        assert form is not None and form.name == name
        assert {"block": form.block, "fraction": form.fraction} == {
            "block": 0, "fraction": 0.0, **DEFAULTS.get(name, {}),
        }  # fmt: skip
    assert Form.named("full", None, None) is None


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_decoded_file_has_the_layout_of_the_base(form: Form, tmp_path: Path) -> None:
    base, encoded = written(form, tmp_path)
    found, wanted = decoded(form, encoded, base), load_file(base)
    assert {name: (one.shape, one.dtype) for name, one in found.items()} == {
        name: (one.shape, one.dtype) for name, one in wanted.items()
    }
    exact = form.name == "delta"
    for name, one in model(2).items():
        same = one.tobytes() == found[name].tobytes()
        assert same or not (exact or one.dtype.kind != "f")


def test_a_delta_is_decoded_to_the_very_file_that_full_would_send(tmp_path: Path) -> None:
    base, encoded = written(Form("delta"), tmp_path)
    decode_file(Form("delta"), encoded, base, SHA, tmp_path / "decoded")
    save_file(model(2), tmp_path / "full")
    assert (tmp_path / "decoded").read_bytes() == (tmp_path / "full").read_bytes()


def test_what_was_left_out_comes_with_the_next(tmp_path: Path) -> None:
    form, base, path = FORMS[3], tmp_path / "base", tmp_path / "encoded"
    save_file(model(1), base)
    _, rest = write_encoded(form, model(2), (base, SHA), path, None)
    save_file(rest, tmp_path / "left")
    _, after = write_encoded(form, model(1), (base, SHA), path, tmp_path / "left")  # no new step
    found, was = decoded(form, path, base), load_file(base)
    for name, left in rest.items():
        came = found[name].reshape(-1).astype("f8") - was[name].reshape(-1)
        np.testing.assert_allclose(came + after[name], left, atol=1e-6)
        assert np.count_nonzero(after[name]) <= np.count_nonzero(left)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_an_update_of_another_base_or_form_is_refused(form: Form, tmp_path: Path) -> None:
    base, encoded = written(form, tmp_path)
    with pytest.raises(BadEncoding, match="the file says"):
        decode_file(form, encoded, base, "b" * 64, tmp_path / "out")
    other = FORMS[(FORMS.index(form) + 1) % len(FORMS)]
    with pytest.raises(BadEncoding, match="wanted"):
        decode_file(other, encoded, base, SHA, tmp_path / "out")
    save_file(model(2), encoded)
    with pytest.raises(BadEncoding, match="the file says 'no form'"):
        decode_file(form, encoded, base, SHA, tmp_path / "out")
    encoded.write_bytes(b"nonsense")
    with pytest.raises(BadEncoding, match="not a safetensors file"):
        decode_file(form, encoded, base, SHA, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"base", "encoded"}


NAME = "layer.weight"


def _without(parts: Model) -> None:
    parts.pop(next(name for name in parts if name.endswith(NAME)))


def _more(parts: Model) -> None:
    parts["int8/backdoor"] = np.ones(1, np.int8)


def _shorter(parts: Model) -> None:
    name = next(name for name in parts if name.endswith(NAME))
    parts[name] = parts[name][:-1].copy()


def _wider(parts: Model) -> None:
    name = next(name for name in parts if name.endswith(NAME))
    parts[name] = parts[name].astype(np.float64)


def _twice(parts: Model) -> None:
    parts[f"place/{NAME}"][1] = parts[f"place/{NAME}"][0]


def _beyond(parts: Model) -> None:
    parts[f"place/{NAME}"][-1] = 1_000_000


def _cut(parts: Model) -> None:
    parts[f"bits/{NAME}"] = parts[f"bits/{NAME}"][:-9].copy()


def _longer(parts: Model) -> None:
    bomb = zlib.compress(b"\0" * 50_000_000, 9)
    parts[f"bits/{NAME}"] = np.frombuffer(bomb, np.uint8)


@pytest.mark.parametrize(
    ("form", "spoil", "told"),
    [
        (FORMS[1], _without, "tensor layer.weight: parts"),
        (FORMS[2], _more, "backdoor is not in the base"),
        (FORMS[1], _shorter, "tensor layer.weight: part bfloat16 is 999"),
        (FORMS[3], _wider, "tensor layer.weight: part value is 100 float64"),
        (FORMS[3], _twice, "not rising"),
        (FORMS[3], _beyond, "not rising ones of 1000"),
        (FORMS[0], _cut, "bits end before"),
        (FORMS[0], _longer, "bits do not end with the tensor"),
    ],
)
def test_malformed_parts_are_refused(form: Form, spoil: Any, told: str, tmp_path: Path) -> None:
    base, encoded = written(form, tmp_path)
    parts = load_file(encoded)
    spoil(parts)
    save_file(parts, encoded, {KEY: form.of_base(SHA)})
    with pytest.raises(BadEncoding, match=told):
        decode_file(form, encoded, base, SHA, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_arrays_that_have_no_step_from_the_base_are_told(tmp_path: Path) -> None:
    save_file(model(1), tmp_path / "base")
    for change, told in (
        ({NAME: np.ones(3, "f4")}, r"layer.weight is float32 \(3,\)"),
        ({"other": np.ones(3, "f4")}, "the reply has other, which the base has not"),
    ):
        with pytest.raises(NotOfTheBase, match=told):
            base = (tmp_path / "base", SHA)
            write_encoded(FORMS[0], model(2) | change, base, tmp_path / "out", None)
    missing = {name: one for name, one in model(2).items() if name != NAME}
    with pytest.raises(NotOfTheBase, match=r"has no layer\.weight"):
        write_encoded(FORMS[0], missing, (tmp_path / "base", SHA), tmp_path / "out", None)


def test_where_only_some_tensors_are_trained_only_they_are_read_and_written(tmp_path: Path) -> None:
    base, encoded = tmp_path / "base", tmp_path / "encoded"
    save_file(model(1), base)
    trainable = ["layer.*"]
    pick(base, tmp_path / "picked", trainable)
    wanted = {name: one for name, one in model(1).items() if name.startswith("layer.")}
    save_file(wanted, tmp_path / "wanted")
    assert (tmp_path / "picked").read_bytes() == (tmp_path / "wanted").read_bytes()
    assert 0 < len(wanted) < len(model(1))
    new = {name: one for name, one in model(2).items() if name in wanted}
    write_encoded(Form("delta"), new, (base, SHA), encoded, None, trainable)
    assert decoded(Form("delta"), encoded, tmp_path / "picked").keys() == wanted.keys()


def test_a_stamped_file_says_it_and_is_the_same_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "file"
    save_file(model(1), path)
    sha256 = stamp(path, {"flowerbed.frozen": SHA})
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with safe_open(path, framework="np") as file:
        assert file.metadata() == {"flowerbed.frozen": SHA}
    for name, one in load_file(path).items():
        assert one.tobytes() == model(1)[name].tobytes()
    save_file(model(1), tmp_path / "theirs", {"flowerbed.frozen": SHA})
    assert path.read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_memory_is_flat_whatever_the_size(form: Form, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    base = rng.standard_normal(8_000_000).astype("f4")
    new = base + rng.standard_normal(base.size).astype("f4") / 1000
    save_file({"w": base}, tmp_path / "base")
    sparse = Form("top_k", fraction=0.01) if form.name == "top_k" else form
    at = (tmp_path / "base", SHA)
    write_encoded(sparse, {"w": new}, at, tmp_path / "encoded", None)
    tracemalloc.start()
    try:
        decode_file(sparse, tmp_path / "encoded", at[0], SHA, tmp_path / "out")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 << 20, "of 32 MB"
