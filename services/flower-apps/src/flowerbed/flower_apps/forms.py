"""Forms of an update that take fewer bytes: how a tensor is written at the site, and read again.

    delta      the differences between the bits of the new values and of the base's, deflated: exact
    bfloat16   the step (new - base), rounded to the nearest bfloat16, ties to even
    int8       the step in blocks, each in 255 levels between its largest magnitude and its negative
    top_k      the elements of the step that are largest in magnitude, by place; what is left out
               is kept at the site and added to the next step (error feedback: Seide et al. 2014,
               section 2; Stich et al. 2018, "Sparsified SGD with memory", algorithm 1; Karimireddy
               et al. 2019, "Error feedback fixes SignSGD", algorithm 2)

A file in one of these forms holds each tensor as parts, `PART/NAME`. Tensors of integers are
counters and go as they are. Steps of float16 and float32 are taken in float32, those of float64 in
float64, one IEEE operation an element: the same step gives the same bytes, and whoever reads them
gets what the writer has counted with. Memory is a few blocks; for top_k a few tensors.

Needs neither torch nor flwr, for the control plane reads with it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flowerbed.flower_apps.form_bits import CHUNK, BadEncoding, deflated, inflated
from flowerbed.flower_apps.form_numbers import (
    from_bfloat16,
    from_levels,
    to_bfloat16,
    to_levels,
)

Array: TypeAlias = NDArray[Any]
FormName: TypeAlias = Literal["delta", "bfloat16", "int8", "top_k"]
NAMES: tuple[FormName, ...] = ("delta", "bfloat16", "int8", "top_k")

KEY = "flowerbed.update"
"""In a file's metadata: see `Form.of_base`. One key: the library writes several in any order."""


@dataclass(frozen=True, slots=True)
class Form:
    """`block`: elements that share a scale, of int8. `fraction`: of elements kept, of top_k."""

    name: FormName
    block: int = 0
    fraction: float = 0.0

    @classmethod
    def named(cls, form: str, block: int | None, fraction: float | None) -> "Form | None":
        """None of `full`, which has nothing to be decoded.

        Raises:
            ValueError: nothing here goes by that name.
        """
        if form == "full":
            return None
        for name in NAMES:
            if name == form:
                return cls(name, block or 0, fraction or 0.0)
        raise ValueError(f"no form {form!r} of an update is known: {', '.join(NAMES)}")

    @property
    def words(self) -> str:
        match self.name:
            case "int8":
                return f"int8 {self.block}"
            case "top_k":
                return f"top_k {self.fraction!r}"
            case name:
                return name

    def of_base(self, sha256: str) -> str:
        """What a file says of itself: its form, its numbers, and what it steps from."""
        return f"{self.words} of {sha256}"


@dataclass(frozen=True, slots=True)
class Part:
    """What a part must be. `count` is None where it depends on the values."""

    dtype: np.dtype[Any]
    count: int | None


@dataclass(slots=True)
class Error:
    """How far what is read lies from what there was to send, as relative L2 distance."""

    lost: float = 0.0
    whole: float = 0.0

    def add(self, wanted: Array, sent: Array) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            difference = np.subtract(wanted, sent, dtype=np.float64)
            self.lost += float(np.dot(difference, difference))
            wide = wanted.astype(np.float64, copy=False)
            self.whole += float(np.dot(wide, wide))

    @property
    def relative(self) -> float:
        """0 where nothing was to be sent; not finite where the values are not."""
        return math.sqrt(self.lost / self.whole) if self.whole else 0.0


def travels(name: str, trainable: Sequence[str]) -> bool:
    """Whether a tensor of that name does, where only some are trained: none named is all."""
    return not trainable or any(fnmatchcase(name, glob) for glob in trainable)


def step_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float64 if dtype.itemsize > 4 else np.float32)


def n_kept(form: Form, count: int) -> int:
    return min(count, math.ceil(form.fraction * count))


def parts_of(form: Form, dtype: np.dtype[Any], count: int) -> dict[str, Part]:
    """The parts of a tensor of that type and so many elements."""
    if form.name == "delta":
        return {"bits": Part(np.dtype(np.uint8), None)}
    if dtype.kind != "f":
        return {"raw": Part(dtype, count)}
    match form.name:
        case "bfloat16":
            return {"bfloat16": Part(np.dtype(np.uint16), count)}
        case "int8":
            n_blocks = -(-count // form.block)
            return {
                "int8": Part(np.dtype(np.int8), count),
                "scale": Part(np.dtype(np.float32), n_blocks),
            }
        case "top_k":
            kept = n_kept(form, count)
            place = np.dtype(np.uint32 if count <= 2**32 else np.uint64)
            return {"place": Part(place, kept), "value": Part(step_type(dtype), kept)}


def check_parts(
    form: Form, found: Mapping[str, tuple[np.dtype[Any], int]], wanted: Mapping[str, Part]
) -> None:
    """Raises: BadEncoding: other parts than the tensor has, or of another type or size."""
    if set(found) != set(wanted):
        raise BadEncoding(f"parts {sorted(found)}, {form.name} has {sorted(wanted)}")
    for name, part in wanted.items():
        dtype, count = found[name]
        if dtype != part.dtype or part.count not in (None, count):
            size = "" if part.count is None else f" {part.count}"
            raise BadEncoding(f"part {name} is {count} {dtype}, wanted{size} {part.dtype}")


# --- writing ------------------------------------------------------------------


def encode(
    form: Form, base: Array, new: Array, error: Error, left: Array | None = None
) -> tuple[dict[str, Array], Array | None]:
    """The parts of one tensor, and what top_k leaves out: the caller brings it as `left` next time.

    `base` and `new` have one shape and type. The error of this tensor is added to `error`.
    """
    base, new = base.reshape(-1), new.reshape(-1)
    if form.name == "delta":
        return {"bits": deflated(base, new)}, None
    if new.dtype.kind != "f":
        return {"raw": new}, None
    if form.name == "top_k":
        return _largest(form, base, new, error, left)
    parts = {
        part: np.empty(wanted.count or 0, wanted.dtype)
        for part, wanted in parts_of(form, new.dtype, new.size).items()
    }
    for start in _starts(form, new.size):
        step = _step(base, new, start, _width(form))
        stop = start + step.size
        if form.name == "bfloat16":
            parts["bfloat16"][start:stop] = to_bfloat16(step)
            sent = from_bfloat16(parts["bfloat16"][start:stop], step.dtype)
        else:
            levels, scales = to_levels(step, form.block)
            parts["int8"][start:stop] = levels
            at = start // form.block
            parts["scale"][at : at + scales.size] = scales
            sent = from_levels(levels, scales, form.block, step.dtype)
        error.add(step, sent)
    return parts, None


def _step(base: Array, new: Array, start: int, width: int) -> Array:
    kind = step_type(new.dtype)
    part = slice(start, start + width)
    with np.errstate(over="ignore", invalid="ignore"):
        step: Array = new[part].astype(kind) - base[part].astype(kind)
    return step


def _largest(
    form: Form, base: Array, new: Array, error: Error, left: Array | None
) -> tuple[dict[str, Array], Array]:
    """Of equal magnitudes those in front, so that no sorting's whim decides."""
    step = _step(base, new, 0, new.size)
    if left is not None:
        step += left.reshape(-1)
    kept = n_kept(form, step.size)
    magnitudes = np.abs(step)
    magnitudes[np.isnan(magnitudes)] = np.inf  # it is sent, and refused where it is read
    places = np.arange(step.size)
    if 0 < kept < step.size:
        least = np.partition(magnitudes, step.size - kept)[step.size - kept]
        above = np.flatnonzero(magnitudes > least)
        equal = np.flatnonzero(magnitudes == least)[: kept - above.size]
        places = np.sort(np.concatenate((above, equal)))
    values = step[places]
    rest = step.copy()
    rest[places] = 0
    error.add(step, step - rest)
    rest[~np.isfinite(rest)] = 0  # never to be kept
    kind = parts_of(form, new.dtype, new.size)["place"].dtype
    return {"place": places.astype(kind), "value": values}, rest


def _width(form: Form) -> int:
    """Elements at a time: whole blocks."""
    return max(1, CHUNK // form.block) * form.block if form.block else CHUNK


def _starts(form: Form, count: int) -> range:
    return range(0, count, _width(form))


# --- reading ------------------------------------------------------------------

Read: TypeAlias = Callable[[str, int, int], Array]
"""Some elements of a part, flat: its name, from where, and how many."""


def decode(
    form: Form,
    base: Callable[[int, int], Array],
    dtype: np.dtype[Any],
    count: int,
    read: Read,
    size: Callable[[str], int],
) -> Iterator[Array]:
    """The tensor's elements in order, flat, some at a time; `size`: how many elements a part has.

    The caller has held the parts against `parts_of`.

    Raises:
        BadEncoding: their content is not what any tensor gives.
    """
    parts = parts_of(form, dtype, count)
    if "bits" in parts:
        yield from inflated(base, dtype, count, lambda at, n: read("bits", at, n), size("bits"))
        return
    if "place" in parts:
        kept = size("place")
        places, values = read("place", 0, kept), read("value", 0, kept)
        _are_places(places, count)
    for start in _starts(form, count):
        n = min(_width(form), count - start)
        if "raw" in parts:
            yield read("raw", start, n)
            continue
        old, kind = base(start, n), step_type(dtype)
        if "bfloat16" in parts:
            step = from_bfloat16(read("bfloat16", start, n), kind)
        elif "int8" in parts:
            scales = read("scale", start // form.block, -(-n // form.block))
            step = from_levels(read("int8", start, n), scales, form.block, kind)
        else:
            first, last = np.searchsorted(places, (start, start + n))
            step = np.zeros(n, kind)
            step[places[first:last].astype(np.int64) - start] = values[first:last]
        with np.errstate(over="ignore", invalid="ignore"):
            yield (old.astype(kind) + step).astype(dtype)


def _are_places(places: Array, count: int) -> None:
    rises = places.size < 2 or bool((places[1:] > places[:-1]).all())
    if not rises or (places.size and int(places[-1]) >= count):
        raise BadEncoding(f"places are not rising ones of {count} elements")
