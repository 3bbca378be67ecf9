"""The round policy: when a round closes, what becomes of late updates, and how long all may take.

    wait for all      the default: every client of the cohort answers, or the deadline comes
    k of n            close_at: k           as soon as k updates are accepted
    deadline          quorum: 0.75          at the deadline three quarters of the goal are enough
    over-selection    over_select: 1.5      ask half as many again, close at the goal
    late updates      late_updates: next_round     a late update counts in the next round, scaled
    buffered          mode: buffered, buffer_size: K       FedBuff (Nguyen et al. 2022)

Every time-out is derived from one declared budget, see `Budget`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from flowerbed.contracts.section import Count, Fraction, Seconds, Section

LEAST_GRACE = 30.0
"""Seconds. What a service may need to be started again and go on must not end a round."""
SHARE_OF_GRACE = 0.1
SHORTEST_EXCHANGE = 1.0
LONGEST_WORK = 7 * 86_400.0
"""Seconds: as long as a presigned URL may be valid."""

ADDED_LATER = (
    "mode", "close_at", "buffer_size", "late_updates", "staleness_exponent", "max_staleness",
    "replace_dropped", "budget_seconds",
)  # fmt: skip
"""Keys that the first release did not know."""


class RoundPolicy(Section):
    """When a round ends.

    `mode`: `synchronous`, or `buffered`: a round closes with every `buffer_size` updates, clients
        that are still training go on, and their updates count in the round that is open then.
    `close_at`: close as soon as so many updates are accepted (k of n); without it, wait for all.
    `quorum`: fraction of the goal that must be accepted for the round to count.
    `over_select`: factor, clients asked per client needed; the round closes at the goal.
    `late_updates`: `refuse`, or count them in the `next_round`, scaled by their staleness.
    `staleness_exponent`: a in (1 + staleness)^-a, the polynomial weighting of Xie et al. 2019
        (FedAsync, section 5.2), with a = 0.5 the 1/sqrt(1 + staleness) of Nguyen et al. 2022.
    `max_staleness`: rounds; an update staler than that is refused, and no longer waited for.
    `replace_dropped`: a client that leaves an open round is replaced from the joined pool.
    `budget_seconds`: what one round may take with all its attempts; time-outs follow from it.
    `deadline_seconds`: the older way to say it: of one exchange. Not both.
    `join_deadline_seconds`: how long the federation waits for enough clients to join.
    """

    mode: Literal["synchronous", "buffered"] = "synchronous"
    close_at: Count | None = None
    buffer_size: Count | None = None
    quorum: Fraction = 1.0
    over_select: Annotated[float, Field(ge=1, le=10, strict=True)] = 1.0
    late_updates: Literal["refuse", "next_round"] = "refuse"
    staleness_exponent: Annotated[float, Field(ge=0, le=10, strict=True)] = 0.5
    max_staleness: Annotated[int, Field(ge=1, le=1000, strict=True)] = 10
    replace_dropped: Annotated[bool, Field(strict=True)] = True
    budget_seconds: Seconds | None = None
    deadline_seconds: Seconds = 600.0
    max_attempts: Count = 3
    join_deadline_seconds: Seconds = 3600.0

    @model_validator(mode="before")
    @classmethod
    def _buffered_counts_late(cls, section: object) -> object:
        """Written out, so that a buffered policy with all its defaults is read back as itself."""
        if not isinstance(section, Mapping) or section.get("mode") != "buffered":
            return section
        return {
            **({} if "lateUpdates" in section else {"late_updates": "next_round"}),
            **section,
        }

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.mode == "buffered":
            self._is_buffered()
        elif self.buffer_size is not None:
            raise ValueError("buffer_size belongs to mode: buffered")
        if self.budget_seconds is not None:
            if "deadline_seconds" in self.model_fields_set and not self._is_derived():
                raise ValueError("budget_seconds or deadline_seconds, not both")
            if Budget.of(self).exchange < timedelta(seconds=SHORTEST_EXCHANGE):
                least = (self.max_attempts + 1) * (SHORTEST_EXCHANGE + 2 * LEAST_GRACE)
                raise ValueError(
                    f"budget_seconds must be at least {least:g} for {self.max_attempts} attempts"
                )
        return self

    def _is_buffered(self) -> None:
        if self.buffer_size is None:
            raise ValueError("mode: buffered needs buffer_size, the updates that close a round")
        if self.close_at is not None:
            raise ValueError("close_at belongs to synchronous rounds: use buffer_size")
        if self.late_updates == "refuse":
            raise ValueError("mode: buffered counts late updates: late_updates is next_round")

    def _is_derived(self) -> bool:
        """A policy that was written out with every default says both."""
        default: float = RoundPolicy.model_fields["deadline_seconds"].default
        return self.deadline_seconds == default

    @property
    def is_buffered(self) -> bool:
        return self.mode == "buffered"

    @property
    def counts_late(self) -> bool:
        """Late updates count in a later round."""
        return self.late_updates == "next_round"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Every time-out of a round, from the one that was declared; each ends before the next.

        start ── replace_until ── exchange (deadline) ── close ── give_up
                                                  whole round <= round_

    `exchange`: what clients have for one exchange, training or evaluation.
    `replace_until`: a client that leaves later than this is not replaced any more.
    `close`: when the aggregator takes what it has, even without the store's last word.
    `give_up`: when the orchestrator stops waiting for the aggregator.
    `late_work`: when work that may be answered in a later round runs out.
    All but `round_` count from the exchange's start.
    """

    exchange: timedelta
    replace_until: timedelta
    close: timedelta
    give_up: timedelta
    late_work: timedelta
    round_: timedelta

    @classmethod
    def of(cls, policy: RoundPolicy) -> "Budget":
        """A round is `max_attempts` trainings and one evaluation, each with its graces."""
        n_exchanges = policy.max_attempts + 1
        seconds = policy.deadline_seconds
        if policy.budget_seconds is not None:
            seconds = _exchange_seconds(policy.budget_seconds / n_exchanges)
        grace = max(LEAST_GRACE, SHARE_OF_GRACE * seconds)
        late = min(LONGEST_WORK, seconds * (policy.max_staleness + 1))
        return cls(
            exchange=timedelta(seconds=seconds),
            replace_until=timedelta(seconds=0.75 * seconds),
            close=timedelta(seconds=seconds + grace),
            give_up=timedelta(seconds=seconds + 2 * grace),
            late_work=timedelta(seconds=max(seconds, late)),
            round_=timedelta(seconds=n_exchanges * (seconds + 2 * grace)),
        )


def still_required(n_required: int, n_left: int) -> int:
    """How many evaluations are needed when so many of those asked have left: one at least."""
    return max(min(1, n_required), n_required - n_left)


def _exchange_seconds(share: float) -> float:
    """The x of x + 2 grace(x) = share."""
    proportional = share / (1 + 2 * SHARE_OF_GRACE)
    if SHARE_OF_GRACE * proportional >= LEAST_GRACE:
        return proportional
    return share - 2 * LEAST_GRACE
