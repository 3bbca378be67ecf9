"""Forms of updates: what is read is what the writer has counted with, whatever the tensors hold."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from flowerbed.flower_apps import form_bits, form_numbers, forms
from flowerbed.flower_apps.forms import Error, Form, check_parts, decode, encode, parts_of

Array = NDArray[Any]
FLOATS = ("<f2", "<f4", "<f8")
INTEGERS = ("<i8", "<i4", "<i2", "i1", "u1", "<u4")
FORMS = st.one_of(
    st.just(Form("delta")),
    st.just(Form("bfloat16")),
    st.builds(lambda block: Form("int8", block), st.integers(16, 300)),
    st.builds(lambda part: Form("top_k", fraction=part), st.floats(1e-3, 0.5)),
)
LOSSY = FORMS.filter(lambda form: form.name != "delta")


def elements(dtype: str, *, finite: bool) -> st.SearchStrategy[Any]:
    kind = np.dtype(dtype)
    if kind.kind != "f":
        info = np.iinfo(kind)
        return st.integers(int(info.min), int(info.max))
    width = 8 * kind.itemsize
    if finite:
        return st.floats(-1e3, 1e3, width=width)  # type: ignore[arg-type]
    return st.floats(width=width)  # type: ignore[arg-type]


@st.composite
def pairs(draw: st.DrawFn, dtypes: tuple[str, ...], *, finite: bool) -> tuple[Array, Array]:
    dtype = draw(st.sampled_from(dtypes))
    shape = draw(st.one_of(st.just(()), array_shapes(min_side=0, max_dims=3, max_side=9)))
    some = arrays(dtype, shape, elements=elements(dtype, finite=finite))
    return draw(some), draw(some)


def read_again(form: Form, base: Array, parts: dict[str, Array]) -> Array:
    flat = base.reshape(-1)
    found = {name: (part.dtype, part.size) for name, part in parts.items()}
    check_parts(form, found, parts_of(form, base.dtype, base.size))
    blocks = decode(
        form,
        lambda start, count: flat[start : start + count],
        base.dtype,
        base.size,
        lambda part, start, count: parts[part][start : start + count],
        lambda part: parts[part].size,
    )
    read = list(blocks)
    whole = np.concatenate(read) if read else np.empty(0, base.dtype)
    assert (whole.dtype, whole.size) == (base.dtype, base.size)
    return whole.reshape(base.shape)


def step(base: Array, new: Array) -> Array:
    kind = forms.step_type(base.dtype)
    difference: Array = new.astype(kind) - base.astype(kind)
    return difference


@given(pairs(FLOATS + INTEGERS, finite=False))
def test_delta_gives_every_bit_back_even_of_a_nan(pair: tuple[Array, Array]) -> None:
    base, new = pair
    parts, left = encode(Form("delta"), base, new, Error())
    assert left is None
    assert read_again(Form("delta"), base, parts).tobytes() == new.tobytes()


@given(LOSSY, pairs(INTEGERS, finite=False))
def test_counters_go_as_they_are(form: Form, pair: tuple[Array, Array]) -> None:
    base, new = pair
    parts, left = encode(form, base, new, error := Error())
    assert left is None and error.relative == 0
    assert read_again(form, base, parts).tobytes() == new.tobytes()


@given(pairs(FLOATS, finite=True))
def test_bfloat16_is_within_half_of_its_last_bit(pair: tuple[Array, Array]) -> None:
    base, new = pair
    parts, _ = encode(Form("bfloat16"), base, new, Error())
    read, whole = read_again(Form("bfloat16"), base, parts), step(base, new)
    bound = np.abs(whole) * 2.0**-8 + 1e-38 + np.abs(new) * np.finfo(base.dtype).eps
    assert (np.abs(step(base, read) - whole) <= bound + np.finfo(base.dtype).tiny).all()


@given(pairs(FLOATS, finite=True), st.integers(16, 40))
def test_int8_is_within_half_a_level_of_its_block(pair: tuple[Array, Array], block: int) -> None:
    base, new = pair
    form = Form("int8", block)
    parts, _ = encode(form, base, new, Error())
    whole = step(base, new).reshape(-1)
    read = step(base, read_again(form, base, parts)).reshape(-1)
    for start in range(0, whole.size, block):
        piece = slice(start, start + block)
        level = float(np.abs(whole[piece]).max()) / form_numbers.LEVELS
        slack = np.abs(new.reshape(-1)[piece]) * np.finfo(base.dtype).eps + 1e-38
        off = np.abs(read[piece] - whole[piece])
        assert (off <= 0.5001 * level + slack + np.finfo(base.dtype).tiny).all()


@given(pairs(("<f4", "<f8"), finite=True), st.floats(1e-3, 0.5))
def test_top_k_sends_the_largest_and_keeps_the_rest(
    pair: tuple[Array, Array], fraction: float
) -> None:
    base, new = pair
    form = Form("top_k", fraction=fraction)
    parts, left = encode(form, base, new, Error())
    assert left is not None
    whole, sent = step(base, new).reshape(-1), np.zeros(base.size, left.dtype)
    sent[parts["place"]] = parts["value"]
    assert (sent + left == whole).all(), "nothing is lost, and nothing is sent twice"
    assert (left[parts["place"]] == 0).all()
    if 0 < parts["place"].size < whole.size:
        assert np.abs(parts["value"]).min() >= np.abs(left).max()


@given(st.lists(arrays("<f4", 40, elements=elements("<f4", finite=True)), min_size=1, max_size=8))
def test_what_top_k_leaves_out_is_sent_in_the_end(steps: list[Array]) -> None:
    """Karimireddy et al. 2019, equation 3: all that was sent and what is left is all there was."""
    form, base, left = Form("top_k", fraction=0.2), np.zeros(40, "<f4"), None
    sent = np.zeros(40)
    for one in steps:
        parts, left = encode(form, base, one, Error(), left)
        sent[parts["place"]] += parts["value"]
    assert left is not None
    np.testing.assert_allclose(sent + left, np.sum(steps, axis=0, dtype="f8"), atol=2e-2)


@settings(max_examples=200)
@given(FORMS, pairs(FLOATS, finite=False))
def test_nothing_that_is_not_finite_is_hidden_or_kept(
    form: Form, pair: tuple[Array, Array]
) -> None:
    """It is for the reader to refuse, so it must reach it; and the next update is free of it."""
    base, new = pair
    base = np.nan_to_num(base, nan=0, posinf=1, neginf=-1)
    base = np.clip(base, -1e4, 1e4).astype(base.dtype)
    parts, left = encode(form, base, new, Error())
    read = read_again(form, base, parts)
    n_bad = int((~np.isfinite(new)).sum())
    if n_bad and (form.name != "top_k" or n_bad <= parts["place"].size):
        assert not np.isfinite(read).all()
    assert left is None or np.isfinite(left).all()


@given(FORMS, pairs(FLOATS, finite=True))
def test_the_same_step_gives_the_same_bytes(form: Form, pair: tuple[Array, Array]) -> None:
    base, new = pair
    first, again = (encode(form, base, new, Error())[0] for _ in range(2))
    assert {name: part.tobytes() for name, part in first.items()} == {
        name: part.tobytes() for name, part in again.items()
    }


@given(st.binary(max_size=200), st.integers(0, 50))
def test_garbage_is_no_bits(garbage: bytes, count: int) -> None:
    """Whatever is inflated, it is refused or gives as many elements: it never swells."""
    base = np.zeros(count, "<f4")
    try:
        read = read_again(Form("delta"), base, {"bits": np.frombuffer(garbage, np.uint8)})
    except form_bits.BadEncoding:
        return
    assert read.size == count
