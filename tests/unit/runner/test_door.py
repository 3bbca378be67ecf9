"""What the door answers, as what the runner may do about it."""

import asyncio

import httpx
import pytest

from flowerbed.contracts.door import LeaseKey
from flowerbed.runner.door import Door
from flowerbed.runner.errors import DoorRefused, LeaseLost, NotAdmitted, NotReachable

KEY = LeaseKey(lease_id="lease/1", epoch=3)
PROBLEM = {"code": "some-code", "detail": "some words"}


def door(answer: httpx.Response | Exception, seen: list[httpx.Request] | None = None) -> Door:
    def handle(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    transport = httpx.MockTransport(handle)
    return Door("https://door", lambda: httpx.AsyncClient(transport=transport))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (403, NotAdmitted), (401, NotAdmitted), (410, LeaseLost), (404, DoorRefused),
        (409, DoorRefused), (422, DoorRefused), (429, NotReachable), (503, NotReachable),
    ],
)  # fmt: skip
async def test_status_says_what_can_be_done(status: int, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"some-code|some words"):
        await door(httpx.Response(status, json=PROBLEM)).heartbeat(KEY)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("refused"), httpx.ReadTimeout(""), httpx.RemoteProtocolError("cut"),
        httpx.Response(502, text="<html>"), httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[]),
    ],
)  # fmt: skip
async def test_what_is_no_answer_is_tried_again(answer: httpx.Response | Exception) -> None:
    with pytest.raises(NotReachable, match="https://door"):
        await door(answer).heartbeat(KEY)


async def test_wish_to_wait_is_handed_on() -> None:
    with pytest.raises(NotReachable) as away:
        await door(httpx.Response(503, headers={"retry-after": "7"})).poll((), 0)
    assert away.value.retry_after == 7
    with pytest.raises(NotReachable, match="did not answer with keys"):
        await door(httpx.Response(200, text="x")).jwks()


async def test_door_that_takes_the_call_and_never_answers_is_given_up() -> None:
    """As a process does that is stopped, or a machine that sleeps."""
    server = await asyncio.start_server(_never, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    hanging = Door(f"http://127.0.0.1:{port}", httpx.AsyncClient)
    try:
        with pytest.raises(NotReachable, match="ReadTimeout"):
            await hanging.heartbeat(KEY, within=0.05)
        with pytest.raises(NotReachable, match="ReadTimeout"):
            await hanging.next_work(KEY, 0.01, late_seconds=0.05)
    finally:
        await hanging.close()
        server.close()


async def test_names_cannot_leave_their_place_in_the_path() -> None:
    seen: list[httpx.Request] = []
    await door(httpx.Response(200, json={}), seen).release(KEY, "")
    assert seen[0].url.raw_path == b"/v1/leases/lease%2F1/release"


async def test_calls_under_way_end_on_the_line_they_began_on() -> None:
    answered = asyncio.Event()

    async def slow(request: httpx.Request) -> httpx.Response:
        await answered.wait()
        return httpx.Response(200, json={"offers": []})

    clients = [httpx.AsyncClient(transport=httpx.MockTransport(slow)) for _ in range(3)]
    lines = iter(clients)
    door = Door("https://door", lambda: next(lines))
    call = asyncio.create_task(door.poll((), 0))
    await asyncio.sleep(0)
    await door.reconnect()
    assert not clients[0].is_closed
    answered.set()
    await call
    assert clients[0].is_closed
    await door.reconnect()
    assert clients[1].is_closed, "an idle line is closed at once"
    await door.close()
    assert clients[2].is_closed


async def _never(*_: object) -> None:
    await asyncio.Event().wait()
