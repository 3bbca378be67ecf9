"""Strategies by name: which parameters each takes, and what it asks of a round.

Names, parameters and defaults are those of `flwr.serverapp.strategy`, the names in lower case.
What Flower's strategies take besides these is said elsewhere in a spec, see `SAID_ELSEWHERE`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from flowerbed.contracts.policy import RoundPolicy
from flowerbed.contracts.section import Section
from flowerbed.contracts.values import Scalar

StrategyName: TypeAlias = Literal[
    "fedavg", "fedprox", "fedavgm", "fedadagrad", "fedadam", "fedyogi", "fedmedian",
    "fedtrimmedavg", "krum", "multikrum", "bulyan", "qfedavg", "fedxgbbagging", "fedxgbcyclic",
    "scaffold", "custom",
]  # fmt: skip

AT_FIRST = frozenset(("fedavg", "fedprox"))
"""Strategies that the first release knows."""

OPTIMIZERS = frozenset(("fedavgm", "fedadagrad", "fedadam", "fedyogi"))
"""What they keep of each weight goes from round to round."""

ROBUST = frozenset(("fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan"))
"""They compare the updates of a round with each other, so all must have started from one base."""

CUSTOM = "custom"
"""A strategy of somebody's own; its parameters are its own too."""

WITH_STATE = OPTIMIZERS | {CUSTOM}
"""What they keep of a round is an artifact that the next one begins with."""

CYCLIC = "fedxgbcyclic"
TREES = frozenset(("fedxgbbagging", CYCLIC))
"""Their models are XGBoost's, which have another size in each round."""

SCAFFOLD = "scaffold"
"""Its checkpoints hold the server's control variate beside the model: clients begin with both."""

OF_ONE_BASE = ROBUST | TREES | {"qfedavg", SCAFFOLD, CUSTOM}
"""A late update's step and loss are of another base than those it would be compared with."""

LABEL_ENTROPY = "label-entropy"
"""The metric by which an update is weighed by entropy. In an order's config, `true` asks for it."""

TRAIN_LOSS = "train-loss"
"""The metric by which qfedavg weighs: the loss of a client's training."""

SAID_ELSEWHERE = {
    "fraction_train": "client_fraction",
    "fraction_evaluate": "client_fraction",
    "min_train_nodes": "min_clients",
    "min_evaluate_nodes": "min_clients",
    "min_available_nodes": "min_clients",
    "eta_l": "train.learning_rate",
    "client_learning_rate": "train.learning_rate",
}
"""Parameters of Flower's, and the key of a spec that says the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A parameter. `default` is None where it must be given."""

    default: float | None = None
    is_whole: bool = False
    above: float | None = None
    at_least: float | None = None
    below: float | None = None

    def admits(self, value: Scalar) -> bool:
        if isinstance(value, bool | str) or (self.is_whole and not isinstance(value, int)):
            return False
        return (
            (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
        )

    @property
    def allowed(self) -> str:
        bounds = [
            f"{words} {bound:g}"
            for words, bound in (
                ("greater than", self.above),
                ("at least", self.at_least),
                ("less than", self.below),
            )
            if bound is not None
        ]
        return f"{'an integer' if self.is_whole else 'a number'} {' and '.join(bounds)}"


def _rate(default: float) -> Number:
    return Number(default=default, above=0)


def _decay(default: float) -> Number:
    return Number(default=default, at_least=0, below=1)


_MALICIOUS = Number(default=0, is_whole=True, at_least=0)
_ADAPTIVE = {"beta_1": _decay(0.9), "beta_2": _decay(0.99), "tau": _rate(1e-3)}

PARAMETERS: dict[str, dict[str, Number]] = {
    "fedavg": {},
    "fedprox": {"proximal_mu": Number(above=0)},
    "fedavgm": {"server_learning_rate": _rate(1.0), "server_momentum": _decay(0.0)},
    "fedadagrad": {"eta": _rate(1e-1), "tau": _rate(1e-3)},
    "fedadam": {"eta": _rate(1e-1), **_ADAPTIVE},
    "fedyogi": {"eta": _rate(1e-2), **_ADAPTIVE},
    "qfedavg": {"q": Number(default=0.1, at_least=0, below=10)},
    "fedmedian": {},
    "fedtrimmedavg": {"beta": Number(default=0.2, at_least=0, below=0.5)},
    "krum": {"num_malicious_nodes": _MALICIOUS},
    "multikrum": {
        "num_malicious_nodes": _MALICIOUS,
        "num_nodes_to_select": Number(default=1, is_whole=True, at_least=1),
    },
    "bulyan": {"num_malicious_nodes": _MALICIOUS},
    "fedxgbbagging": {},
    "fedxgbcyclic": {},
    "scaffold": {"server_learning_rate": _rate(1.0)},
}
"""Of each strategy that is built."""


class Weighting(Section):
    """Factors of an update's weight in a mean, multiplied with each other.

    `examples`: its number of examples; without it all weigh the same.
    `recency`: a of (1 + staleness)^-a, beside the policy's own scaling of a late update's step.
    `entropy`: of the labels that the client trains on, in nats, as it reports it.
    """

    examples: Annotated[bool, Field(strict=True)] = True
    recency: Annotated[float, Field(ge=0, le=10, strict=True)] = 0.0
    entropy: Annotated[bool, Field(strict=True)] = False


def refused_weighting(name: str, weighting: Weighting) -> str | None:
    """What is allowed instead, where a strategy weighs by a rule of its own."""
    if name in OF_ONE_BASE and weighting != Weighting():
        return f"{name} weighs by its own rule: leave weighting out"
    return None


def checked(name: str, params: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The parameters with every default written out.

    Raises:
        ValueError: one is unknown, missing or out of its range; it names all of them.
    """
    if name == CUSTOM:
        return dict(params)
    known = PARAMETERS[name]
    told = []
    if unknown := sorted(set(params) - set(known)):
        told.append(f"unknown params {unknown} for {name}: {sorted(known)}")
        told += [f"{one} is spec.{SAID_ELSEWHERE[one]}" for one in unknown if one in SAID_ELSEWHERE]
    whole: dict[str, Scalar] = {}
    for key, number in known.items():
        value = params.get(key, number.default)
        if value is None or not number.admits(value):
            told.append(f"{name} needs {key}, {number.allowed}")
        else:
            whole[key] = value
    if told:
        raise ValueError("; ".join(told))
    return whole


# --- what robust strategies ask of a round ----------------------------------


def trimmed(beta: float, n: int) -> int:
    """How many of `n` values FedTrimmedAvg cuts off at each end.

    In decimal, as a person wrote it: as a binary float 0.29 of 100 is a little less than 29.
    """
    return math.floor(Fraction(str(beta)) * n)


def least_updates(name: str, params: Mapping[str, Scalar]) -> int:
    """With fewer updates the strategy's rule promises nothing.

    Krum and Multi-Krum: n >= 2f + 3 (Blanchard et al. 2017, proposition 1), and of the n no more
    are selected than are honest. Bulyan: n >= 4f + 3 (El Mhamdi et al. 2018, section 4). A trimmed
    mean that trims nobody, and a median of two, are means.
    """
    n_malicious = int(params.get("num_malicious_nodes", 0))
    match name:
        case "fedmedian":
            return 3
        case "fedtrimmedavg":
            beta = Fraction(str(params["beta"]))
            return math.ceil(1 / beta) if beta else 1
        case "krum":
            return 2 * n_malicious + 3
        case "multikrum":
            n_selected = int(params["num_nodes_to_select"])
            return max(2 * n_malicious + 3, n_malicious + n_selected)
        case "bulyan":
            return 4 * n_malicious + 3
        case _:
            return 1


def refused_policy(
    name: str, params: Mapping[str, Scalar], policy: RoundPolicy, min_clients: int
) -> str | None:
    """What is allowed instead, where a strategy cannot work under a round policy."""
    if name not in OF_ONE_BASE:
        return None
    if policy.is_buffered or policy.counts_late:
        return f"{name} compares updates of one base: mode synchronous, late_updates refuse"
    goal = min(min_clients, policy.close_at or min_clients)
    n, least = math.ceil(Fraction(str(policy.quorum)) * goal), least_updates(name, params)
    if n < least:
        return (
            f"{name} needs {least} updates, and with min_clients {min_clients}, close_at and quorum"
            f" a round may close with {n}"
        )
    return None
