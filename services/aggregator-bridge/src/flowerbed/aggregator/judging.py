"""From a client's report to the command that accepts or rejects it."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from flowerbed.aggregator.bridge import Bridge
from flowerbed.aggregator.decider import AcceptUpdate, RejectUpdate
from flowerbed.aggregator.projections.submissions import Report
from flowerbed.aggregator.quorum import Terms
from flowerbed.aggregator.screening import HEADER_SLACK, Refused, screen_claims, screen_file
from flowerbed.artifact.blobs import DigestDiffers, TooLarge
from flowerbed.contracts.update import UpdateFailed, UpdateSubmitted
from flowerbed.events.errors import NotFound, Unavailable
from flowerbed.events.telemetry import span


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """`base`: the checkpoint that updates are compared with; None where none are asked for.

    `place`: what every update's URI begins with; a client may not point to other objects.
    """

    bridge: Bridge
    terms: Terms
    folder: Path
    base: Path | None
    place: str

    def file_of(self, client_id: str) -> Path:
        return self.folder / f"{self.terms.cohort.index(client_id)}.safetensors"

    async def judge(self, report: Report, *, is_last_chance: bool) -> AcceptUpdate | RejectUpdate:
        """Verify and screen one report.

        Raises:
            Unavailable: S3 is away, and this is not the last chance.
        """
        event = report.event
        if isinstance(event, UpdateFailed):
            return self._reject(event, event.code, event.detail)
        try:
            async with self.bridge.screening:
                norm = await asyncio.to_thread(self._screen, report, event)
        except Refused as refused:
            return self._reject(event, refused.code, refused.detail)
        except Unavailable as error:
            if not is_last_chance:
                raise
            return self._reject(event, "store-unavailable", str(error))
        return AcceptUpdate(
            terms=self.terms,
            client_id=event.client_id,
            work_id=event.work_id,
            artifact=event.artifact if self.base is not None else None,
            n_examples=event.n_examples,
            metrics=event.metrics,
            train_seconds=event.train_seconds,
            norm=norm,
        )

    def _screen(self, report: Report, event: UpdateSubmitted) -> float | None:
        with span(
            "screen update",
            report.context,
            linked=True,
            round_num=event.round_number,
            client_id=event.client_id,
        ) as opened:
            screen_claims(event.n_examples, event.metrics, self.bridge.limits)
            if self.base is None:
                return None
            path = self.file_of(event.client_id)
            try:
                self._fetch(event, path, self.base)
                norm = screen_file(path, self.base, self.bridge.limits)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            opened.set_attribute("norm", norm)
            return norm

    def _fetch(self, event: UpdateSubmitted, path: Path, base: Path) -> None:
        if event.artifact is None:
            raise Refused("object-missing", "no update was reported")
        if not event.artifact.uri.startswith(self.place):
            raise Refused("foreign-object", f"{event.artifact.uri} is not below {self.place}")
        largest = base.stat().st_size + HEADER_SLACK
        if event.artifact.size > largest:
            raise Refused("too-large", f"{event.artifact.size} bytes, {largest} allowed")
        try:
            self.bridge.transport.fetch(event.artifact, path, largest)
        except NotFound as error:
            raise Refused("object-missing", str(error)) from error
        except DigestDiffers as error:
            raise Refused("hash-mismatch", str(error)) from error
        except TooLarge as error:
            raise Refused("too-large", str(error)) from error

    def _reject(
        self, event: UpdateSubmitted | UpdateFailed, code: str, detail: str
    ) -> RejectUpdate:
        return RejectUpdate(
            terms=self.terms,
            client_id=event.client_id,
            work_id=event.work_id,
            code=code,
            detail=detail,
        )
