"""One verified order becomes one report: from the journal, or by a run of the app.

order -> journal? -> limits -> finished by a worker that died? -> room on the disk, base checkpoint,
run -> dataset unchanged? -> journal -> upload -> report
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from flowerbed.contracts.door import Measures, WorkReport
from flowerbed.contracts.ids import flower_number
from flowerbed.contracts.signed import Download, Limits, Manifest, WorkOrder
from flowerbed.contracts.strategies import LABEL_ENTROPY
from flowerbed.contracts.values import ArtifactRef
from flowerbed.runner import clock, storage, transfer
from flowerbed.runner.errors import NotReachable, Refused
from flowerbed.runner.journal import Finished, Measured, Spent, WorkKey
from flowerbed.runner.memories import APP_STATE, LEFT_OUT, Memory
from flowerbed.runner.patience import patiently
from flowerbed.runner.pipe import Hello, Request, Result
from flowerbed.runner.site import Site
from flowerbed.runner.site_app import SiteApp
from flowerbed.runner.state import has_digest
from flowerbed.runner.verify import LEEWAY_SECONDS, check_order
from flowerbed.runner.warm import Left, Worker
from flowerbed.runner.work_folder import LARGEST, WorkFolder

logger = logging.getLogger(__name__)

T = TypeVar("T")
EXAMPLES = "num-examples"
TOKENS = "num-tokens"
CUT_SHORT = "not-readable"
"""Why there is no energy of a run of which we have not seen the beginning or the end."""
SIZE_SECONDS = 5.0
"""How often to look at how much an app keeps."""
GOES_ON = frozenset(
    {"deadline-passed", "disk-full", "site-storage", "dataset-gone", "dataset-unreadable",
     "base-not-available"}
)  # fmt: skip
"""Refusals after which the same work may be ordered again and get further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    report: WorkReport
    is_from_journal: bool


class Bench:
    """Does the orders of one lease, one at a time, with one warm worker."""

    def __init__(
        self,
        site: Site,
        manifest: Manifest,
        app: SiteApp,
        listen: Callable[[bytes], None] | None = None,
    ) -> None:
        """`listen` is told what the worker writes."""
        self._site = site
        self._manifest = manifest
        self._config = app.config
        hello = Hello(
            app=app.name,
            folder=None if app.folder is None else str(app.folder),
            client_app=app.client_app,
            run_config=dict(app.config),
            node_config=dict(site.node_config),
            data_path=str(site.dataset.folder),
            run_id=flower_number(manifest.federation_id),
            node_id=flower_number(manifest.client_id),
            is_traced=site.spans.is_on,
        )
        self.worker = Worker(hello, site.start_worker, listen)

    async def answer(self, order: WorkOrder) -> Answered:
        """Do the work, or find it done; its update lies in the store when this returns.

        Raises:
            Refused: the work may not or cannot be done.
        """
        key = WorkKey.of(order)
        finished = await self._journalled(key)
        is_from_journal = finished is not None
        if finished is None:
            finished = await self._done(order, key)
        else:
            logger.info("%s is done already: answered from the journal", order.work_id)
        artifact, upload_seconds = None, None
        if finished.sha256 is not None and order.upload is not None:
            began = time.monotonic()
            with self._site.spans.of_work("upload", order):
                artifact = await self._uploaded(order, finished)
            upload_seconds = time.monotonic() - began
        report = WorkReport(
            epoch=order.lease_epoch,
            artifact=artifact,
            n_examples=finished.n_examples,
            metrics=finished.metrics,
            train_seconds=finished.train_seconds,
            measures=_measures(finished, upload_seconds) if order.takes_measures else None,
        )
        return Answered(report=report, is_from_journal=is_from_journal)

    async def _journalled(self, key: WorkKey) -> Finished | None:
        finished = self._site.journal.find(key.digest)
        if finished is None or finished.sha256 is None:
            return finished
        await self._site.take_over(key.digest)
        path = self._site.result_path(finished.sha256)
        if await asyncio.to_thread(has_digest, path, finished.sha256):
            return finished
        logger.warning("the result of finished work is gone from disk: doing it again")
        return None

    async def _done(self, order: WorkOrder, key: WorkKey) -> Finished:
        """Do the work; what there is of it stays for another try, unless that would be in vain."""
        site, folder = self._site, self._site.work_folder(key.digest)
        site.under_way.add(key.digest)
        try:
            finished = await self._run(order, key, folder)
            await site.take_over(key.digest)
        except Refused as refusal:
            if refusal.code not in GOES_ON:
                folder.remove()
            raise
        finally:
            site.under_way.discard(key.digest)
        return finished

    async def _run(self, order: WorkOrder, key: WorkKey, folder: WorkFolder) -> Finished:
        journal = self._site.journal
        epochs = self._epochs(order)
        limits = self._manifest.limits
        spent = journal.spent(order.lease_id)
        check_limits(limits, spent, epochs)
        policy = self._site.policy()
        policy.check_epochs(epochs, spent.epochs)
        policy.check_disclosure(bool(order.config.get(LABEL_ENTROPY)))
        needed = storage.needed_for(order.base.size)
        if folder.finished() is None:
            storage.check_free(self._site.state.root, needed)
        folder.make()
        run = journal.start_run(key, order.lease_id)

        def look() -> Left:
            """After a death: what it left, and a note of it in the journal."""
            finished, progress = folder.finished(), folder.progress()
            journal.go_on(run, epochs if finished is not None else progress)
            return Left(result=finished, progress=-1 if progress is None else progress)

        result = None if run.is_new else look().result
        measured = Measured(joules_reason=CUT_SHORT)
        if result is None:
            result, measured = await self._run_app(order, key, folder, look)
        n_examples, metrics = _readings(result, order)
        if not policy.label_entropy:
            metrics.pop(LABEL_ENTROPY, None)  # of an app that tells it unasked
        tokens = max(0, int(metrics.get(TOKENS, n_examples * epochs))) if epochs else 0
        try:
            check_order(order, self._manifest, await self._site.terms())
            check_used(limits, journal.spent(order.lease_id), tokens)
        except Refused as refusal:
            if refusal.code not in GOES_ON:
                journal.finish_run(run, epochs=epochs, tokens=tokens)
            raise
        finished = Finished(
            sha256=result.sha256,
            size=result.size,
            n_examples=n_examples,
            metrics=metrics,
            train_seconds=result.seconds,
            state_sha256=result.state_sha256,
            left_sha256=result.left_sha256,
            measured=replace(measured, form_error=result.form_error),
        )
        journal.record(key, finished, run=run, epochs=epochs, tokens=tokens)
        return finished

    async def _run_app(
        self, order: WorkOrder, key: WorkKey, folder: WorkFolder, look: Callable[[], Left]
    ) -> tuple[Result, Measured]:
        began = time.monotonic()
        with self._site.spans.of_work("download", order):
            # First, so that of the bases that are kept it is never the oldest.
            frozen = await self._frozen(order)
            base = await self._downloaded(order, order.base, order.download)
        download_seconds = time.monotonic() - began
        request = Request(
            message_type=order.message_type,
            base_path=str(base),
            folder=str(folder.path),
            has_update=order.message_type == "train",
            state_path=await self._memory(APP_STATE, order),
            config={**order.config, "seed": order.seed, "server-round": order.round_number},
            seed=order.seed,
            form=self._manifest.update,
            base_sha256=order.base.sha256,
            left_path=await self._memory(LEFT_OUT, order, key.digest),
            frozen_path=None if frozen is None else str(frozen),
            message=order.message,
        )
        site, before = self._site, await self._site.power.reading()
        try:
            with site.spans.of_work(order.message_type, order) as span:
                result = await self._in_worker(request, folder, look, order)
        except TimeoutError as error:
            raise Refused("deadline-passed", "the app was still running at the deadline") from error
        except Refused as refusal:
            if refusal.code == storage.DISK_FULL:
                needed = storage.needed_for(order.base.size)
                raise storage.disk_full(self._site.state.root, needed) from refusal
            if refusal.code == "app-failed":  # perhaps because its data went away
                check_order(order, self._manifest, await self._site.terms())
            raise
        site.spans.hand_in(span, result.spans)
        joules = await site.power.used_since(before)
        reason = None if joules is not None else site.power.reason or CUT_SHORT
        return result, Measured(
            download_seconds=download_seconds, joules=joules, joules_reason=reason
        )

    async def _in_worker(
        self, request: Request, folder: WorkFolder, look: Callable[[], Left], order: WorkOrder
    ) -> Result:
        seconds = order.exp + LEEWAY_SECONDS - clock.now()
        return await asyncio.wait_for(self._bounded(request, folder, look), seconds)

    async def _bounded(
        self, request: Request, folder: WorkFolder, look: Callable[[], Left]
    ) -> Result:
        """Run the app, and end it when it keeps more than it may."""
        running = asyncio.create_task(self.worker.run(request, look))
        try:
            while not (await asyncio.wait({running}, timeout=SIZE_SECONDS))[0]:
                size = await asyncio.to_thread(folder.size)
                if size > LARGEST:
                    raise Refused(
                        "checkpoint-too-large", f"the app keeps {size} bytes, at most {LARGEST}"
                    )
            return running.result()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _memory(
        self, memory: Memory, order: WorkOrder, before: str | None = None
    ) -> str | None:
        """The file of what is remembered; None where there is nothing, or no more.

        With `before`, nothing as well where that work is in it already.
        """
        sha256 = self._site.journal.memory_of(memory, order.lease_id, before)
        if sha256 is None:
            return None
        path = self._site.state_path(sha256)
        if await asyncio.to_thread(has_digest, path, sha256):
            return str(path)
        message = f"{memory.words} is gone from disk: it begins with nothing"
        logger.warning(message)
        self._site.board.error(message)
        return None

    async def _frozen(self, order: WorkOrder) -> Path | None:
        """The tensors that are not trained: fetched once, then they lie here."""
        if order.frozen is None or order.frozen_download is None:
            return None
        return await self._downloaded(order, order.frozen, order.frozen_download)

    async def _downloaded(self, order: WorkOrder, base: ArtifactRef, source: Download) -> Path:
        folder = self._site.state.bases(order.lease_id)
        self._site.board.status.store = transfer.origin(source.url)
        get = partial(transfer.download, self._site.store, source.url, base, folder)
        return await _in_time(get, order, "base-not-available")

    async def _uploaded(self, order: WorkOrder, finished: Finished) -> ArtifactRef:
        target = order.upload
        assert target is not None
        assert finished.sha256 is not None
        path = self._site.result_path(finished.sha256)
        put = partial(transfer.upload, self._site.store, target, path)
        await _in_time(put, order, "upload-failed")
        return ArtifactRef(uri=target.uri, sha256=finished.sha256, size=finished.size)

    def _epochs(self, order: WorkOrder) -> int:
        """Passes over the data that the order asks for; only training counts."""
        if order.message_type.partition(".")[0] != "train":
            return 0
        config = {**self._config, **order.config}
        value = order.config.get("local_epochs", config.get("local-epochs", 1))
        if isinstance(value, str) or value < 0 or value != int(value):
            raise Refused("claims", f"local-epochs is {value!r}, not a count")
        return int(value)


def check_limits(limits: Limits, spent: Spent, epochs: int) -> None:
    """May as many more passes be trained under the lease? Before anything runs.

    Raises:
        Refused: a limit would be passed, as far as can be told now.
    """
    if epochs == 0:
        return
    if limits.max_epochs is not None and spent.epochs + epochs > limits.max_epochs:
        raise Refused(
            "limit-exceeded",
            f"{spent.epochs} epochs trained, {epochs} ordered, max_epochs {limits.max_epochs}",
        )
    if limits.max_tokens is None:
        return
    # Before the first training nobody knows how many examples there are: at least one an epoch.
    expected = epochs * max(1, round(spent.last_tokens_per_epoch or 1))
    if spent.tokens + expected > limits.max_tokens:
        raise Refused(
            "limit-exceeded",
            f"{spent.tokens} tokens used, {expected} ordered, max_tokens {limits.max_tokens}",
        )


def check_used(limits: Limits, spent: Spent, tokens: int) -> None:
    """What ran beyond the limit stays at the site.

    Raises:
        Refused: the run has used more tokens than were left.
    """
    if limits.max_tokens is not None and tokens and spent.tokens + tokens > limits.max_tokens:
        raise Refused(
            "limit-exceeded",
            f"{spent.tokens} tokens used, {tokens} by this order, max_tokens {limits.max_tokens}",
        )


def _readings(result: Result, order: WorkOrder) -> tuple[int, dict[str, float]]:
    """The examples that the app counted, and its other metrics as far as they are numbers.

    Raises:
        Refused: the app did not say how many examples it used.
    """
    examples = result.metrics.get(EXAMPLES, None if order.message is None else 0)
    if examples is None or not math.isfinite(examples) or examples != int(examples):
        raise Refused("bad-reply", f"the reply's metrics have {EXAMPLES} {examples!r}")
    metrics: dict[str, float] = {}
    left_out = list(result.left_out)
    for name, value in result.metrics.items():
        if not math.isfinite(value):
            left_out.append(name)
        elif name != EXAMPLES:
            metrics[name] = value
    if left_out:
        names = ", ".join(left_out)
        logger.warning("%s: not reported, no finite number: %s", order.work_id, names)
    return int(examples), metrics


def _measures(finished: Finished, upload_seconds: float | None) -> Measures:
    """Tokens are what the app counted, and nothing that could be guessed from its epochs."""
    tokens, measured = finished.metrics.get(TOKENS), finished.measured
    is_count = tokens is not None and 0 <= tokens < 2**63 and tokens == int(tokens)
    return Measures(
        download_seconds=measured.download_seconds,
        upload_seconds=upload_seconds,
        n_tokens=int(tokens) if tokens is not None and is_count else None,
        joules=measured.joules,
        joules_reason=measured.joules_reason,
        form_error=measured.form_error,
    )


async def _in_time(call: Callable[[], Awaitable[T]], order: WorkOrder, code: str) -> T:
    try:
        return await patiently(call, until=order.exp)
    except NotReachable as error:
        raise Refused(code, f"until the deadline: {error}") from error
