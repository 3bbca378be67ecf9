"""The service shell with real servers: what it answers, and what it does when they go away."""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from flowerbed.events import relay as relay_module
from flowerbed.events import supervision
from flowerbed.events.consumer import Consumer
from flowerbed.events.database import Connection
from flowerbed.events.errors import FlowerbedError, NotFound, Rejected, Unavailable
from flowerbed.events.jetstream import Bus
from flowerbed.events.recorded import Recorded
from flowerbed.events.service import Shell, run
from flowerbed.events.settings import ServiceSettings
from tests.support.garden import MIGRATIONS, Sown, codec
from tests.support.garden_service import build
from tests.support.servers import (
    MakeDatabase,
    MakeSettings,
    NatsServer,
    Proxy,
    ServiceDatabase,
    eventually,
    free_port,
)

MakeProxy = Callable[[int], Awaitable[Proxy]]


def client(settings: ServiceSettings) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{settings.http_port}", timeout=10)


@asynccontextmanager
async def served(
    settings: ServiceSettings, *builds: Callable[[Shell], Awaitable[None]]
) -> AsyncIterator[tuple[Shell, httpx.AsyncClient]]:
    """A service in this process."""
    shell = Shell(settings)
    for one in builds or (build,):
        await one(shell)
    await shell.start()
    try:
        async with client(settings) as http:
            await eventually(lambda: _answers(http, "/healthz"), "it serves")
            yield shell, http
    finally:
        await shell.stop()


async def _answers(http: httpx.AsyncClient, path: str, status: int = 200) -> bool:
    try:
        return (await http.get(path)).status_code == status
    except httpx.TransportError:
        return False


@pytest.fixture
async def lease(service_database: MakeDatabase) -> ServiceDatabase:
    return await service_database("lease", [MIGRATIONS])


@pytest.fixture
async def gateway(service_database: MakeDatabase) -> ServiceDatabase:
    return await service_database("gateway", [MIGRATIONS])


async def test_command_travels_to_the_other_service(
    lease: ServiceDatabase,
    gateway: ServiceDatabase,
    fresh_streams: Bus,
    service_settings: MakeSettings,
) -> None:
    async with (
        served(service_settings(lease)) as (owner, http),
        served(service_settings(gateway)) as (reader, other),
    ):
        assert (await http.post("/beds/bed-1/sow")).json() == {"recorded": 1}
        assert (await http.post("/beds/bed-1/sow")).json() == {"recorded": 0}
        assert (await http.get("/beds/bed-1")).json() == {"seed": "a", "litres": 0}
        await eventually(lambda: reader.intakes["notes"].handled == 1, "the gateway heard of it")
        status = (await http.get("/status")).json()
        assert status["leads"] == ["relay"]
        assert status["relay"]["sequence"] == 1
        assert status["lags"] == {"outbox": 0}
        status = (await other.get("/status")).json()
        assert status["consumers"] == {"notes": {"handled": 1, "waits_for": None}}
        metrics = (await other.get("/metrics")).text
        assert 'projection_lag_events{consumer="notes",service="gateway"} 0.0' in metrics
        assert 'consumer_redeliveries_total{consumer="notes",service="gateway"}' in metrics
        assert 'dead_letters_total{consumer="notes",service="gateway"}' in metrics
        assert 'outbox_lag_events{service="lease"} 0.0' in (await http.get("/metrics")).text
        for one in (http, other):
            ready = await one.get("/readyz")
            assert ready.json()["checks"] == {"postgres": "ok", "nats": "ok"}
            assert ready.status_code == 200
        assert owner.database.on_append is not None


async def test_write_on_another_replica_wakes_the_leader(
    lease: ServiceDatabase,
    fresh_streams: Bus,
    service_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_module, "IDLE_POLL", 3600.0)
    async with served(service_settings(lease)) as (leader, _):
        await eventually(lambda: leader.relaying is not None and _marked(leader), "it relays")
        async with served(service_settings(lease)) as (standby, http):
            await standby.bus.wait_connected(5)
            for number in range(5):
                await http.post(f"/beds/bed-{number}/sow")
                await eventually(lambda n=number: _sequence(leader) > n, "relayed")
            assert standby.leadership.roles == []
            assert (await http.get("/status")).json()["relay"] is None
            assert "outbox" in (await http.get("/status")).json()["lags"]


async def test_roles_move_to_another_replica(
    lease: ServiceDatabase, fresh_streams: Bus, service_settings: MakeSettings
) -> None:
    async with served(service_settings(lease)) as (standby, _):
        await eventually(lambda: standby.leadership.holds("relay"), "the first leads")
        async with served(service_settings(lease)) as (second, http):
            owner = await lease.owner()
            pids = await owner.fetch(
                "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock'"
            )
            assert len(pids) == 1
            await standby.leadership._connection.close()  # type: ignore[union-attr]
            await standby._life._end(["leadership"], 0)
            await eventually(lambda: second.leadership.holds("relay"), "it moved", timeout=5)
            await http.post("/beds/bed-1/sow")
            await eventually(lambda: _sequence(second) == 1, "the second relays")


async def test_errors_are_problems(
    lease: ServiceDatabase, fresh_streams: Bus, service_settings: MakeSettings
) -> None:
    async with served(service_settings(lease)) as (_, http):
        past = "stream 'bed-1' has moved past version 3"
        expected = {
            ("GET", "/beds/none"): (404, "not-found", "no bed 'none'"),
            ("POST", "/beds/none/water"): (409, "nothing-sown", "nothing is sown in this bed"),
            ("GET", "/fails/conflict"): (409, "conflict", past),
            ("GET", "/fails/unknown"): (500, "internal-error", "an error of ours; the log has it"),
            ("GET", "/fails/badly"): (500, "internal-error", "an error of ours; the log has it"),
            ("GET", "/nowhere"): (404, "not-found", "Not Found"),
            ("DELETE", "/healthz"): (405, "method-not-allowed", "Method Not Allowed"),
            ("GET", "/internal/dead-letters"): (
                401, "unauthorized", "the internal token is required",
            ),
        }  # fmt: skip
        for (method, path), (status, code, detail) in expected.items():
            body = {"litres": 1} if method == "POST" else None
            answer = await http.request(method, path, json=body)
            problem = answer.json()
            assert answer.headers["content-type"] == "application/problem+json", path
            assert (answer.status_code, problem["code"], problem["detail"]) == (
                status, code, detail,
            )  # fmt: skip
            assert problem["status"] == status
            assert "secret" not in answer.text


async def test_body_that_is_not_valid_is_a_problem_with_each_error(
    lease: ServiceDatabase, fresh_streams: Bus, service_settings: MakeSettings
) -> None:
    async with served(service_settings(lease)) as (_, http):
        answer = await http.post("/beds/bed-1/water", json={"litres": "many"})
        assert answer.status_code == 422
        problem = answer.json()
        assert problem["code"] == "not-valid"
        assert problem["errors"][0]["path"] == "body.litres"
        assert problem["errors"][0]["value"] == "many"
        answer = await http.post("/beds/bed-1/water", json={"secret": ["x"] * 3})
        assert "value" not in answer.json()["errors"][0]


async def test_dead_letters_are_listed_and_replayed_by_who_knows_the_token(
    lease: ServiceDatabase,
    gateway: ServiceDatabase,
    fresh_streams: Bus,
    service_settings: MakeSettings,
) -> None:
    settings = service_settings(gateway)
    token = {"Authorization": f"Bearer {settings.internal_token.get_secret_value()}"}
    is_broken = True

    async def fails(tx: Connection, recorded: Recorded[Any]) -> None:
        if is_broken:
            raise Rejected("not today")

    async def failing(shell: Shell) -> None:
        shell.consume(Consumer("fails", "FL_LEASE", {Sown: fails}, codec))

    async with (
        served(service_settings(lease)) as (_, http),
        served(settings, failing) as (reader, other),
    ):
        await http.post("/beds/bed-1/sow", params={"federation_id": "fed-1"})
        await eventually(lambda: reader.intakes["fails"].handled == 1, "it is dead")
        for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Bearer é"}):
            answer = await other.get(
                "/internal/dead-letters",
                headers=httpx.Headers(headers, encoding="latin-1"),
            )
            assert answer.status_code == 401
        (letter,) = (await other.get("/internal/dead-letters", headers=token)).json()
        assert (letter["lane"], letter["error"]) == ("fed-1", "Rejected: not today")
        ask = {"consumer": "fails", "federation_id": "fed-1"}
        answer = await other.post("/internal/dead-letters/replay", json=ask, headers=token)
        assert answer.status_code == 409
        is_broken = False
        answer = await other.post("/internal/dead-letters/replay", json=ask, headers=token)
        assert answer.json() == {"replayed": 1}
        assert (await other.get("/internal/dead-letters", headers=token)).json() == []
        ask["consumer"] = "nobody"
        answer = await other.post("/internal/dead-letters/replay", json=ask, headers=token)
        assert answer.status_code == 404


async def test_service_starts_without_postgres_and_nats_and_recovers_by_itself(
    lease: ServiceDatabase,
    fresh_streams: Bus,
    service_settings: MakeSettings,
    proxy: MakeProxy,
    nats_server: NatsServer,
) -> None:
    to_postgres, to_nats = await proxy(lease.address.port), await proxy(nats_server.port)
    await to_postgres.cut()
    await to_nats.cut()
    settings = service_settings(lease).model_copy(
        update={
            "database_port": to_postgres.port,
            "nats_url": f"nats://127.0.0.1:{to_nats.port}",
        }
    )
    async with served(settings) as (shell, http):
        for path in ("/readyz", "/beds/bed-1"):
            answer = await http.get(path)
            assert answer.status_code == 503, path
            assert int(answer.headers["Retry-After"]) > 0
        assert (await http.get("/beds/bed-1")).json()["code"] == "unavailable"
        assert set((await http.get("/readyz")).json()["checks"]) == {"postgres", "nats"}
        assert (await http.get("/metrics")).status_code == 200
        assert (await http.get("/status")).json()["lags"] == {}
        await to_postgres.start()
        await eventually(lambda: _answers(http, "/beds/bed-1", 404), "postgres is back")
        assert (await http.post("/beds/bed-1/sow")).status_code == 200
        assert (await http.get("/readyz")).json()["checks"]["nats"] != "ok"
        await to_nats.start()
        await eventually(lambda: _sequence(shell) == 1, "the event is relayed")
        assert (await http.get("/readyz")).status_code == 200
        await to_postgres.cut()
        answer = await http.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["checks"]["nats"] == "ok"
        await to_postgres.start()
        await eventually(lambda: _answers(http, "/readyz"), "ready again")
        assert (await http.post("/beds/bed-1/water", json={"litres": 1})).status_code == 200
        await eventually(lambda: _sequence(shell) == 2, "and relaying", timeout=8)


async def test_work_that_fails_is_said_and_started_again(
    lease: ServiceDatabase,
    fresh_streams: Bus,
    service_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervision, "WELL_AFTER", 1.0)
    runs: list[str] = []

    async def fails() -> None:
        runs.append("fails")
        if len([one for one in runs if one == "fails"]) < 3:
            raise RuntimeError("a bug")
        await asyncio.Event().wait()

    async def waits() -> None:
        runs.append("waits")
        if runs.count("waits") < 2:
            raise Unavailable("away")

    async def more(shell: Shell) -> None:
        shell.background("sweep", fails, leader=True)
        shell.background("once", waits)
        with pytest.raises(FlowerbedError, match="two background works"):
            shell.background("once", waits)
        shell.readiness("key", key)
        shell.lag("polls", polls)
        shell.status(status)

    async def key() -> None:
        if runs.count("fails") < 3:
            raise NotFound("no signing key")

    async def polls() -> float:
        return 7

    async def status() -> dict[str, Any]:
        return {"polls": 7}

    async with served(service_settings(lease), more) as (shell, http):
        await eventually(lambda: "sweep" in shell.failing, "it failed")
        report = (await http.get("/readyz")).json()
        assert report["failing"] == {"sweep": "RuntimeError: a bug"}
        assert report["ready"] is False
        assert report["checks"]["key"] == "NotFound: no signing key"
        assert report["lags"]["polls"] == 7
        await eventually(lambda: runs.count("fails") == 3, "started again")
        await eventually(lambda: runs.count("waits") == 2, "this too")
        assert (await http.get("/status")).json()["polls"] == 7
        assert (
            'flowerbed_lag{name="polls",service="lease"} 7.0' in (await http.get("/metrics")).text
        )
        await eventually(lambda: not shell.failing, "it is well again", timeout=8)


async def test_service_refuses_what_the_topology_does_not_give_it(
    lease: ServiceDatabase, service_settings: MakeSettings
) -> None:
    shell = Shell(service_settings(lease))
    with pytest.raises(FlowerbedError, match="lease has no durable on FL_ARTIFACT"):
        shell.consume(Consumer("x", "FL_ARTIFACT", {}, codec))
    shell.consume(Consumer("x", "FL_ORCHESTRATOR", {}, codec))
    with pytest.raises(FlowerbedError, match="two consumers are called 'x'"):
        shell.consume(Consumer("x", "FL_ORCHESTRATOR", {}, codec))
    with pytest.raises(NotFound, match="no consumer 'y'"):
        await shell.replay("y", "fed-1")


async def test_second_app_is_served_on_a_socket_of_our_user_alone(
    lease: ServiceDatabase, fresh_streams: Bus, service_settings: MakeSettings, tmp_path: Path
) -> None:
    path = tmp_path / "door.sock"
    path.write_text("left over")
    door = FastAPI()

    @door.get("/hello")
    async def hello() -> dict[str, str]:
        raise NotFound("nobody")

    async def more(shell: Shell) -> None:
        shell.serve(door, path)

    async with served(service_settings(lease), more):
        assert path.stat().st_mode & 0o777 == 0o600
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport, base_url="http://door") as http:
            await eventually(lambda: _answers(http, "/hello", 404), "the door is open")
            assert (await http.get("/hello")).json()["code"] == "not-found"


async def test_taken_port_is_fatal(lease: ServiceDatabase, service_settings: MakeSettings) -> None:
    settings = service_settings(lease)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", settings.http_port))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            await Shell(settings).start()


async def test_process_serves_logs_json_and_stops_on_sigterm(
    lease: ServiceDatabase, fresh_streams: Bus, service_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = service_settings(lease)
    file = tmp_path / "settings.json"
    secrets = {
        name: value.get_secret_value()
        for name, value in settings.model_dump().items()
        if isinstance(value, SecretStr)
    }
    file.touch(mode=0o600)
    file.write_text(json.dumps(settings.model_dump(mode="json") | secrets))
    environment = {**os.environ, "FLOWERBED_SETTINGS_FILE": str(file), "PYTHONUNBUFFERED": "1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.garden_service",
        env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with client(settings) as http:
            await eventually(lambda: _answers(http, "/healthz"), "it serves")
            trace = "0af7651916cd43dd8448eb211c80319c"
            traced = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
            await http.post("/beds/bed-1/sow", headers=traced)
            await http.get("/fails/badly", headers=traced)
        owner = await lease.owner()
        await eventually(lambda: _relayed(fresh_streams), "relayed")
        meta = json.loads(await owner.fetchval("SELECT meta FROM events"))
        assert meta["traceparent"].split("-")[1] == trace
        process.send_signal(signal.SIGTERM)
        output, _ = await asyncio.wait_for(process.communicate(), 10)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()
    lines = [json.loads(line) for line in output.decode().splitlines()]
    assert all(line["service"] == "lease" and line["level"] and line["time"] for line in lines)
    failed = next(line for line in lines if line["message"] == "GET /fails/badly failed")
    assert failed["trace_id"] == trace
    assert lines[-1]["message"] == "lease stops"
    for secret in secrets.values():
        assert secret not in output.decode()
    assert await owner.fetchval("SELECT mark FROM relay_marks") is not None


def test_service_without_any_server_stops_when_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = logging.root.handlers[:], logging.root.level
    settings = ServiceSettings(
        service="lease", database_host="127.0.0.1", database_port=1, database_name="x",
        database_user="x", database_password=SecretStr("x"), reader_user="x",
        reader_password=SecretStr("x"), nats_url="nats://127.0.0.1:1", nats_user="lease",
        nats_password=SecretStr("x"), http_port=free_port(), internal_token=SecretStr("x"),
    )  # fmt: skip
    door, path = FastAPI(), tmp_path / "door.sock"
    statuses: list[int] = []

    def stop_when_it_serves() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{settings.http_port}") as http:
            for _ in range(500):
                with suppress(httpx.TransportError):
                    statuses.append(http.get("/healthz").status_code)
                    break
                time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    teller = Thread(target=stop_when_it_serves)
    teller.start()
    try:
        run(settings, build, serve=[(door, path)])
    finally:
        teller.join()
        logging.root.handlers[:], logging.root.level = before
    assert statuses == [200]
    assert path.exists()


async def _relayed(admin: Bus) -> bool:
    return (await admin.tail("FL_LEASE")).sequence == 1


def _sequence(shell: Shell) -> int:
    assert shell.relaying is not None
    return shell.relaying.sequence


def _marked(shell: Shell) -> bool:
    return shell.relaying is not None and shell.relaying.mark is not None
