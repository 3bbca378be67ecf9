"""q-FedAvg: clients that do badly weigh more (Li et al. 2020, "Fair Resource Allocation in
Federated Learning", algorithm 2).

With F the loss that a client reports of its training, L = 1 / the clients' learning rate, and
w - w_k the step back from its update to the base:

    delta_k = F^q L (w - w_k),    h_k = q F^(q-1) |L (w - w_k)|^2 + L F^q
    new w   = w - sum(delta_k) / sum(h_k)

That is a mean with the weights F^q, of whose step the base takes a part. The steps' lengths are
those that screening has recorded, so one pass over the updates is enough.
"""

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import ClassVar

from flowerbed.contracts.strategies import TRAIN_LOSS
from flowerbed.contracts.update import UpdateAccepted
from flowerbed.events.errors import Rejected

LEAST_LOSS = 1e-10
"""Added to each loss, as Flower does it: a loss of 0 has no power below 0."""


class LossUnknown(Rejected):
    code: ClassVar[str] = "loss-unknown"


def fair_weight(update: UpdateAccepted, q: float) -> float:
    """F^q.

    Raises:
        LossUnknown: the client did not report its loss, or one below 0.
    """
    return _power(_loss(update), q)


def share_of_step(updates: Iterable[UpdateAccepted], q: float, learning_rate: float) -> float:
    """What the base takes of the weighted mean's step: L sum(F^q) / sum(h)."""
    lipschitz = 1 / learning_rate
    weights, norms = [], []
    for update in updates:
        loss, weight = _loss(update), fair_weight(update, q)
        assert update.norm is not None
        weights.append(weight)
        norms.append(q * _power(loss, q - 1) * (lipschitz * update.norm) ** 2 + lipschitz * weight)
    return lipschitz * math.fsum(weights) / math.fsum(norms)


def _loss(update: UpdateAccepted) -> float:
    loss = update.metrics.get(TRAIN_LOSS)
    if loss is None or loss < 0:
        found = "none" if loss is None else f"{loss:g}"
        raise LossUnknown(
            f"qfedavg weighs by {TRAIN_LOSS}: {update.client_id} reported {found}, at least 0 is"
            " needed"
        )
    return loss + LEAST_LOSS


def _power(base: float, exponent: float) -> float:
    """The same on every machine, which the C library's is not."""
    return float(Decimal(base) ** Decimal(exponent))
