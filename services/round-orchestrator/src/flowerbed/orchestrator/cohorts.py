"""Who is asked: how many, which clients, at which places. Pure and seeded.

A client that owes work of an earlier round is busy: it is asked nothing until it has answered,
or until its work may no longer count.
"""

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from itertools import count

from flowerbed.contracts.ids import derive_seed, work_id
from flowerbed.contracts.policy import RoundPolicy
from flowerbed.contracts.round import CohortMember, OwedWork, RoundMemberReplaced
from flowerbed.contracts.spec import FederationSpec, Spec
from flowerbed.orchestrator.state import Cohort, Member, Owed, Pool, Training, policy_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """`n_asked` clients train; `goal` and `n_required` count the updates that are owed too."""

    n_asked: int
    goal: int
    n_required: int


# --- how many ---------------------------------------------------------------


def n_needed(spec: FederationSpec) -> int:
    """Joined clients without which no round starts."""
    policy = spec.spec.round_policy
    return max(spec.spec.n_expected, policy.buffer_size or 1)


def can_open(spec: FederationSpec, pool: Pool) -> bool:
    return len(pool) >= n_needed(spec)


def sizes(spec: Spec, *, n_joined: int, n_idle: int, n_owed: int) -> Sizes:
    """How many of the idle clients are asked, and how many updates are wanted and needed."""
    policy = spec.round_policy
    if policy.buffer_size is not None:
        goal = policy.buffer_size
        n_asked = max(share(spec.client_fraction, n_idle), goal - n_owed)
    else:
        wanted = max(spec.min_clients, share(spec.client_fraction, n_joined))
        n_asked = share(policy.over_select, wanted)
        goal = min(wanted, policy.close_at or wanted)
    n_asked = min(n_idle, n_asked)
    goal = min(goal, n_asked + n_owed)
    return Sizes(n_asked=n_asked, goal=goal, n_required=share(policy.quorum, goal))


def share(factor: float, n: int) -> int:
    """At least so many, in decimal: as a binary float 0.07 of 100 is a little more than 7."""
    return math.ceil(Fraction(str(factor)) * n)


# --- who owes what ----------------------------------------------------------


def closed_without(training: Training, owing: Iterable[str]) -> Owed:
    """The work of this exchange and of earlier ones whose ids are named in `owing`."""
    own = (
        OwedWork(
            client_id=member.client_id,
            work_id=_work_id(training, member),
            round_number=training.round_number,
            attempt=training.attempt,
            base=training.base,
            until=training.work_until,
        )
        for member in training.cohort
    )
    named = frozenset(owing)
    return tuple(work for work in (*training.owed, *own) if work.work_id in named)


def still_owed(
    owed: Owed, policy: RoundPolicy, round_number: int, pool: Pool, at: datetime
) -> Owed:
    """What of it may count in this round: not too stale, not run out, its client still joined."""
    if not policy.counts_late:
        return ()
    joined = _ids(pool)
    return tuple(
        work
        for work in owed
        if work.client_id in joined
        and round_number - work.round_number <= policy.max_staleness
        and (work.until is None or at < work.until)
    )


def idle(pool: Pool, owed: Owed) -> Pool:
    busy = {work.client_id for work in owed}
    return tuple(member for member in pool if member.client_id not in busy)


def _work_id(training: Training, member: CohortMember) -> str:
    place = (training.round_number, training.attempt)
    return work_id(training.federation_id, *place, "train", member.client_id)


# --- which clients, at which places -----------------------------------------


def stable(pool: Pool) -> Pool:
    """In an order that two runs on the same datasets share; client ids differ between runs."""
    return tuple(sorted(pool, key=lambda member: (member.dataset_sha256, member.client_id)))


def round_seed(spec: FederationSpec, round_number: int) -> int:
    return derive_seed(spec.spec.train.seed, "round", round_number)


def cohort(before: Cohort, free: Pool, n: int, seed: int, attempt: int) -> Cohort:
    """`n` of the free clients, a seeded sample in stable order.

    Those of an earlier attempt (`before`) are asked again, each at its place and with its seed, so
    that it answers from what it has done already; the sample fills the gaps.
    """
    there = {member.client_id: member for member in free}
    again = [member for member in before if member.client_id in there][:n]
    kept = {member.client_id: member.seed for member in again}
    others = tuple(member for member in free if member.client_id not in kept)
    new = iter(_sample(others, n - len(kept), derive_seed(seed, "cohort", attempt)))
    seeds = _unused_seeds(seed, kept.values())
    seats: list[CohortMember] = []
    for member in before:
        if member.client_id in kept:
            seats.append(_seat(there[member.client_id], member.seed))
        elif (one := next(new, None)) is not None:
            seats.append(_seat(one, next(seeds)))
    return (*seats, *(_seat(one, next(seeds)) for one in new))


def in_turn(members: Pool, round_number: int) -> Pool:
    """The one whose turn it is in this round, in stable order; nobody where nobody is."""
    return stable(members)[(round_number - 1) % max(1, len(members)) :][:1]


def everybody(members: Pool, seed: int) -> Cohort:
    return tuple(map(_seat, stable(members), _unused_seeds(seed, ())))


def replacements(training: Training, pool: Pool, at: datetime) -> list[RoundMemberReplaced]:
    """Who takes the places of clients that are joined no more, as far as idle ones are left."""
    if not policy_of(training).replace_dropped or at >= training.replace_until:
        return []
    joined, asked = _ids(pool), {member.client_id for member in training.cohort}
    spare = [one for one in idle(stable(pool), training.owed) if one.client_id not in asked]
    vacant = [place for place, one in enumerate(training.cohort) if one.client_id not in joined]
    seed = round_seed(training.spec, training.round_number)
    chosen = random.Random(derive_seed(seed, "replacement", training.attempt, *vacant[:1])).sample(
        spare, min(len(spare), len(vacant))
    )
    return [_replaced(training, place, one) for place, one in zip(vacant, chosen, strict=False)]


def _replaced(training: Training, place: int, replacement: Member) -> RoundMemberReplaced:
    left = training.cohort[place]
    return RoundMemberReplaced(
        federation_id=training.federation_id,
        round_number=training.round_number,
        attempt=training.attempt,
        place=place,
        client_id=left.client_id,
        replacement=_seat(replacement, left.seed),
        reason=f"{left.client_id} left the federation",
    )


def _sample(pool: Pool, n: int, seed: int) -> Pool:
    members = stable(pool)
    places = sorted(random.Random(seed).sample(range(len(members)), n))
    return tuple(members[place] for place in places)


def _seat(member: Member, seed: int) -> CohortMember:
    return CohortMember(
        client_id=member.client_id,
        lease_id=member.lease_id,
        lease_epoch=member.lease_epoch,
        seed=seed,
    )


def _unused_seeds(seed: int, used: Iterable[int]) -> Iterator[int]:
    """The places' own seeds in order, without those that are taken."""
    taken = frozenset(used)
    return (one for place in count() if (one := derive_seed(seed, "client", place)) not in taken)


def _ids(pool: Pool) -> frozenset[str]:
    return frozenset(member.client_id for member in pool)
