"""Kernels that need all updates of a round at once, a block of each at a time.

Memory is a few blocks, however large the model: blocks are read from the updates' files, of which
the kernel keeps what it likes in its page cache. They are read and not mapped, so a file that
becomes shorter is an error and not a SIGBUS, and pages of updates are no memory of the process.

    sorted_values       of each element the values of all updates, in their order
    squared_distances   between all updates, as steps from the base, summed in float64

Distances are taken between steps (update - base). Between whole weights in float32, as Flower does
it, the rounding of |a|^2 + |b|^2 - 2ab is as large as the distance once updates are a thousandth of
the weights. Centred on the base, and not on the updates' mean, an update that is far away on
purpose cannot take the digits from the distances between the others.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from flowerbed.aggregator.fold import N_THREADS
from flowerbed.aggregator.tensors import Array, Tensor, TensorFile

T = TypeVar("T")
R = TypeVar("R")

BLOCK_BYTES = 8 << 20
"""Of float64, of all updates together: what a core's cache and the memory's rows like."""


def sorted_values(
    updates: Sequence[TensorFile], tensor: Tensor, combine: Callable[[Array], Array]
) -> Iterator[Array]:
    """What `combine` makes of (elements, updates), each row sorted; block after block.

    Rows do not depend on the order of the updates: not even a zero's sign does.
    """

    def work(start: int) -> Array:
        rows = np.empty((len(updates), min(width, tensor.count - start)), tensor.dtype)
        for row, update in zip(rows, updates, strict=True):
            update.read_into(row, tensor.name, start)
        if tensor.dtype.kind == "f":
            # -0.0 equals 0.0, so a sort may leave them in any order: there is but one zero here.
            rows = np.add(rows, 0, dtype=np.promote_types(tensor.dtype, np.float32))
        columns = np.ascontiguousarray(rows.T)
        columns.sort(axis=1)
        return combine(columns)

    width = _width(len(updates))
    return _in_order(work, range(0, tensor.count, width))


def squared_distances(updates: Sequence[TensorFile], base: TensorFile) -> Array:
    """Squared L2 distances over all tensors, (updates, updates)."""
    width, n = _width(len(updates)), len(updates)

    def work(block: tuple[Tensor, int]) -> Array:
        tensor, start = block
        count = min(width, tensor.count - start)
        reference, steps = base.part(tensor.name, start, count), np.empty((n, count))
        for step, update in zip(steps, updates, strict=True):
            np.subtract(update.part(tensor.name, start, count), reference, out=step)
        products: Array = steps @ steps.T
        return products

    products = np.zeros((n, n))
    tensors = sorted(base.tensors.values(), key=lambda tensor: tensor.name)
    blocks = ((tensor, at) for tensor in tensors for at in range(0, tensor.count, width))
    for some in _in_order(work, blocks):
        products += some
    squares = np.diagonal(products)
    distances: Array = np.maximum(squares[:, None] + squares[None, :] - 2 * products, 0)
    np.fill_diagonal(distances, 0)
    return distances


def _width(n_updates: int) -> int:
    return max(256, BLOCK_BYTES // (8 * n_updates))


def _in_order(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The results in the items' order, worked out by all cores a few items ahead."""
    with ThreadPoolExecutor(N_THREADS) as pool:
        coming: deque[Future[R]] = deque()
        for item in items:
            coming.append(pool.submit(work, item))
            if len(coming) > N_THREADS:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
