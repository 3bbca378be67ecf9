"""From a client's report to the command that accepts or rejects it."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowerbed.aggregator.bridge import Bridge
from flowerbed.aggregator.decider import AcceptUpdate, RejectUpdate
from flowerbed.aggregator.projections.submissions import Report
from flowerbed.aggregator.quorum import Terms
from flowerbed.aggregator.screening import (
    HEADER_SLACK,
    Refused,
    screen_claims,
    screen_entropy,
    screen_file,
    screen_trees,
)
from flowerbed.aggregator.spool import Spool
from flowerbed.aggregator.trees import LARGEST
from flowerbed.artifact.blobs import DigestDiffers, TooLarge
from flowerbed.contracts.trace import of_screening
from flowerbed.contracts.update import UpdateFailed, UpdateSubmitted
from flowerbed.contracts.values import ArtifactRef
from flowerbed.events.errors import NotFound, Unavailable
from flowerbed.events.telemetry import span
from flowerbed.flower_apps.form_bits import BadEncoding


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """`base`: the checkpoint that updates are compared with; None where none are asked for.
    A late update is compared with its own base.

    `holds_trees`: updates are XGBoost models, which have no distance and no fixed size.
    `weighs_by_entropy`: an update must say how its labels are spread.
    `prefix`: what every update's URI begins with; a client may not point to other objects.
    `form`: in which updates travel, None in full; `full_size`: what one has in full.
    """

    bridge: Bridge
    spool: Spool
    base: ArtifactRef | None
    prefix: str
    holds_trees: bool = False
    form: str | None = None
    full_size: int | None = None
    weighs_by_entropy: bool = False

    async def judge(
        self, report: Report, terms: Terms, *, is_last_chance: bool
    ) -> AcceptUpdate | RejectUpdate:
        """Verify and screen one report.

        Raises:
            Unavailable: S3 is away, and this is not the last chance.
        """
        event = report.event
        if isinstance(event, UpdateFailed):
            return _reject(terms, event, event.code, event.detail)
        try:
            async with self.bridge.screening:
                norm = await asyncio.to_thread(self._screen, report, event, terms)
        except Refused as refused:
            return _reject(terms, event, refused.code, refused.detail)
        except Unavailable as error:
            if not is_last_chance:
                raise
            return _reject(terms, event, "store-unavailable", str(error))
        return AcceptUpdate(
            terms=terms,
            client_id=event.client_id,
            work_id=event.work_id,
            artifact=event.artifact if self.base is not None else None,
            n_examples=event.n_examples,
            metrics=event.metrics,
            train_seconds=event.train_seconds,
            norm=norm,
            **self._form(event),
        )

    def _screen(self, report: Report, event: UpdateSubmitted, terms: Terms) -> float | None:
        with span(
            "screen update",
            report.context,
            under=of_screening(event.federation_id, event.work_id),
            round_num=event.round_number,
            client_id=event.client_id,
        ) as opened:
            screen_claims(event.n_examples, event.metrics, self.bridge.limits)
            if self.base is None:
                return None
            if self.weighs_by_entropy:
                screen_entropy(event.n_examples, event.metrics)
            path = self.spool.update(event.work_id)
            try:
                base = self._base_of(event, terms)
                self._fetch(event, base, self._started_from(event, terms))
                if self.holds_trees:
                    screen_trees(path, base)
                    return None
                norm = screen_file(path, base, self.bridge.limits)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            opened.set_attribute("norm", norm)
            return norm

    def _form(self, event: UpdateSubmitted) -> dict[str, Any]:
        """In which form the update came, and what that saved and cost; nothing of a full one."""
        if self.form is None or self.base is None:
            return {}
        return {
            "form": self.form,
            "full_size": self.full_size,
            "form_error": event.form_error,
        }

    def _started_from(self, event: UpdateSubmitted, terms: Terms) -> ArtifactRef:
        """What the update was trained from."""
        assert self.base is not None
        owed = terms.owed_at(terms.places[event.work_id])
        return self.base if owed is None else owed.base

    def _base_of(self, event: UpdateSubmitted, terms: Terms) -> Path:
        """Its file."""
        ref = self._started_from(event, terms)
        try:
            return self.spool.base(ref)
        except (NotFound, DigestDiffers) as error:
            if ref == self.base:
                raise
            raise Refused("object-missing", f"what it was trained from: {error}") from error

    def _fetch(self, event: UpdateSubmitted, base: Path, started_from: ArtifactRef) -> None:
        if event.artifact is None:
            raise Refused("object-missing", "no update was reported")
        if not event.artifact.uri.startswith(self.prefix):
            raise Refused("foreign-object", f"{event.artifact.uri} is not below {self.prefix}")
        largest = base.stat().st_size + HEADER_SLACK + (LARGEST if self.holds_trees else 0)
        if event.artifact.size > largest:
            raise Refused("too-large", f"{event.artifact.size} bytes, {largest} allowed")
        try:
            self.spool.fetch(
                self.bridge.transport, event.work_id, event.artifact, started_from, largest
            )
        except BadEncoding as error:
            raise Refused("wrong-form", str(error)) from error
        except NotFound as error:
            raise Refused("object-missing", str(error)) from error
        except DigestDiffers as error:
            raise Refused("hash-mismatch", str(error)) from error
        except TooLarge as error:
            raise Refused("too-large", str(error)) from error


def _reject(
    terms: Terms, event: UpdateSubmitted | UpdateFailed, code: str, detail: str
) -> RejectUpdate:
    return RejectUpdate(
        terms=terms,
        client_id=event.client_id,
        work_id=event.work_id,
        code=code,
        detail=detail,
    )
