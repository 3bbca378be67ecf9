"""Where two contents of one message differ: for the author of an app that is not deterministic."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, RecordDict

_MOST = 3
_EPOCH_SECONDS = (1e9, 1e10)


def differences(was: RecordDict, now: RecordDict) -> str:
    """The first few places that differ, and what they look like."""
    found = list(_records(was, now))
    more = f", and {len(found) - _MOST} more places" if len(found) > _MOST else ""
    return "; ".join(found[:_MOST]) + more if found else "the bytes differ, and no value"


def _records(was: RecordDict, now: RecordDict) -> Iterator[str]:
    yield from _keys("records", list(was), list(now))
    for name in was.keys() & now.keys():
        before, after = was[name], now[name]
        if type(before) is not type(after):
            yield f"record {name!r} was {type(before).__name__}, is {type(after).__name__}"
            continue
        yield from _keys(f"the keys of record {name!r}", list(before), list(after))
        for key in before:
            if key in after and (told := _value(before, before[key], after[key])):
                yield f"record {name!r}, key {key!r}: {told}"


def _keys(what: str, was: list[str], now: list[str]) -> Iterator[str]:
    if was != now:
        yield f"{what} were {', '.join(was[:10])}, are {', '.join(now[:10])}"


def _value(record: Any, was: Any, now: Any) -> str:
    if not isinstance(record, ArrayRecord):
        return "" if was == now else f"was {was!r:.80}, is {now!r:.80}{_looks_like(was)}"
    if was.data == now.data and was.dtype == now.dtype:
        return ""
    before, after = was.numpy(), now.numpy()
    if before.shape != after.shape or before.dtype != after.dtype:
        return f"was {before.dtype}{before.shape}, is {after.dtype}{after.shape}"
    if before.dtype.kind not in "fiub":
        return "other elements"
    apart = np.abs(before.astype(np.float64) - after.astype(np.float64))
    n = int(np.count_nonzero(apart))
    return f"{n} of {before.size} elements differ, by up to {apart.max(initial=0.0):.3g}"


def _looks_like(value: Any) -> str:
    is_time = isinstance(value, float) and _EPOCH_SECONDS[0] < value < _EPOCH_SECONDS[1]
    return " (it looks like a time)" if is_time else ""
