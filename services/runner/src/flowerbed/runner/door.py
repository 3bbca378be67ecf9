"""The clients' door from this side: typed calls over mTLS. Every call may be repeated."""

import asyncio
import email.utils
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from flowerbed.contracts.door import (
    Accepted,
    Certificate,
    CertificateRequest,
    LeaseBeat,
    LeaseClaim,
    LeaseDecline,
    LeaseHeld,
    LeaseKey,
    LeaseOffers,
    LeasePoll,
    LeaseRelease,
    LogBatch,
    WorkFailure,
    WorkOffer,
    WorkPoll,
    WorkReport,
)
from flowerbed.contracts.values import DatasetRef
from flowerbed.runner import clock
from flowerbed.runner.errors import DoorRefused, LeaseLost, NotAdmitted, NotReachable

A = TypeVar("A", bound=BaseModel)

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 15.0
HANDED_ON_SECONDS = 60.0
LATE_SECONDS = 8.0
"""A long poll is answered when its time is up; later than this, nobody is there."""


class _Line:
    """One HTTP client with one certificate; closed when the last call through it has ended."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.calls = 0
        self.is_retired = False


class Door:
    """`connect` makes an HTTP client with the certificate that is current when it is called."""

    def __init__(self, url: str, connect: Callable[[], httpx.AsyncClient]) -> None:
        self.url = url
        self._connect = connect
        self._line = _Line(connect())

    async def reconnect(self) -> None:
        """Use the new certificate from now on; calls under way end with the old one."""
        old, self._line = self._line, _Line(self._connect())
        old.is_retired = True
        if old.calls == 0:
            await old.http.aclose()

    async def close(self) -> None:
        await self._line.http.aclose()

    async def poll(self, known: tuple[LeaseKey, ...], wait_seconds: float) -> LeaseOffers:
        message = LeasePoll(wait_seconds=wait_seconds, known=known)
        within = wait_seconds + LATE_SECONDS
        return await self._post("/v1/leases/poll", message, LeaseOffers, within)

    async def claim(
        self,
        lease: LeaseKey,
        dataset: DatasetRef,
        form: str | None = None,
        node_key: str | None = None,
    ) -> LeaseHeld:
        """`form`: of updates, as the manifest names it."""
        message = LeaseClaim(
            epoch=lease.epoch, dataset=dataset, update_form=form, node_key=node_key
        )
        return await self._post(f"{_path(lease)}/claim", message, LeaseHeld)

    async def decline(self, lease: LeaseKey, code: str, detail: str) -> Accepted:
        message = LeaseDecline(epoch=lease.epoch, code=code, detail=detail)
        return await self._post(f"{_path(lease)}/decline", message, Accepted)

    async def heartbeat(
        self, lease: LeaseKey, within: float = ANSWER_SECONDS, idle_seconds: float | None = None
    ) -> LeaseHeld:
        """`within`: a lease that is short cannot wait long for an answer that does not come."""
        message = LeaseBeat(epoch=lease.epoch, idle_seconds=idle_seconds)
        return await self._post(f"{_path(lease)}/heartbeat", message, LeaseHeld, within)

    async def next_work(
        self, lease: LeaseKey, wait_seconds: float, late_seconds: float = LATE_SECONDS
    ) -> WorkOffer:
        message = WorkPoll(epoch=lease.epoch, wait_seconds=wait_seconds)
        within = wait_seconds + late_seconds
        return await self._post(f"{_path(lease)}/work/next", message, WorkOffer, within)

    async def report(self, lease: LeaseKey, work_id: str, report: WorkReport) -> Accepted:
        return await self._post(f"{_path(lease)}/work/{_quoted(work_id)}/report", report, Accepted)

    async def fail(self, lease: LeaseKey, work_id: str, failure: WorkFailure) -> Accepted:
        path = f"{_path(lease)}/work/{_quoted(work_id)}/failure"
        return await self._post(path, failure, Accepted)

    async def log(self, lease: LeaseKey, batch: LogBatch) -> Accepted:
        return await self._post(f"{_path(lease)}/logs", batch, Accepted)

    async def release(self, lease: LeaseKey, reason: str) -> Accepted:
        message = LeaseRelease(epoch=lease.epoch, reason=reason)
        return await self._post(f"{_path(lease)}/release", message, Accepted)

    async def renew(self, csr_pem: str) -> Certificate:
        return await self._post("/v1/certificate", CertificateRequest(csr_pem=csr_pem), Certificate)

    async def hand_on(self, path: str, headers: dict[str, str], body: bytes) -> httpx.Response:
        """What a SuperNode asks for, as it is; the answer too.

        Raises:
            NotReachable: there was none.
        """
        async with self._borrowed() as http:
            try:
                return await http.post(
                    self.url + path, content=body, headers=headers, timeout=HANDED_ON_SECONDS
                )
            except httpx.RequestError as error:
                raise NotReachable(f"{self.url} did not answer: {_words(error)}") from error

    async def jwks(self) -> dict[str, Any]:
        answer = await self._call("GET", "/.well-known/jwks.json", None, ANSWER_SECONDS)
        try:
            document: dict[str, Any] = answer.json()
        except ValueError as error:
            raise NotReachable(f"{self.url} did not answer with keys") from error
        return document

    async def _post(
        self,
        path: str,
        message: BaseModel,
        answer_type: type[A],
        within: float = ANSWER_SECONDS,
    ) -> A:
        body = message.model_dump_json().encode()
        answer = await self._call("POST", path, body, within)
        try:
            return answer_type.model_validate_json(answer.content)
        except ValidationError as error:
            raise NotReachable(f"{self.url} did not answer as a clients' door does") from error

    async def _call(
        self, method: str, path: str, body: bytes | None, within: float
    ) -> httpx.Response:
        timeout = httpx.Timeout(within, connect=min(within, CONNECT_SECONDS))
        headers = {"content-type": "application/json"} if body is not None else {}
        async with self._borrowed() as http:
            sent_at = clock.since_boot()
            try:
                answer = await http.request(
                    method, self.url + path, content=body, headers=headers, timeout=timeout
                )
            except httpx.RequestError as error:
                raise NotReachable(f"{self.url} did not answer: {_words(error)}") from error
        clock.learn(answer.headers.get("date"), sent_at, clock.since_boot())
        _raise_for(self.url, answer)
        return answer

    @asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[httpx.AsyncClient]:
        line = self._line
        line.calls += 1
        try:
            yield line.http
        finally:
            line.calls -= 1
            if line.is_retired and line.calls == 0:
                await asyncio.shield(line.http.aclose())


def _path(lease: LeaseKey) -> str:
    return f"/v1/leases/{_quoted(lease.lease_id)}"


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _words(error: httpx.RequestError) -> str:
    reason = str(error) or type(error).__name__
    if "certificate is not yet valid" in reason or "certificate has expired" in reason:
        return f"{reason}; is the clock of this machine right?"
    return reason


def _raise_for(url: str, answer: httpx.Response) -> None:
    status = answer.status_code
    if status < 400:
        return
    code, detail = _problem(answer)
    if status >= 500 or status in (408, 425, 429):
        wait = retry_after(answer.headers.get("retry-after"))
        raise NotReachable(f"{url} answered {status} ({code})", wait)
    if status == 410:
        raise LeaseLost(detail)
    if status in (401, 403):
        raise NotAdmitted(f"{code}: {detail}")
    raise DoorRefused(status, code, detail)


def _problem(answer: httpx.Response) -> tuple[str, str]:
    """`code` and `detail` of a problem document (RFC 9457)."""
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        return "http", f"HTTP {answer.status_code}"
    detail = problem.get("detail") or problem.get("title") or f"HTTP {answer.status_code}"
    return str(problem.get("code", "http")), str(detail)


def retry_after(header: str | None) -> float | None:
    """Seconds, from a Retry-After header that has either seconds or a date (RFC 9110)."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - clock.now())
    except ValueError:
        return None
