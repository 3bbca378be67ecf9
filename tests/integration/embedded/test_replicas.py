"""One replica, one node of NATS, dies; those who ask hear nothing of it."""

import asyncio
import signal
import ssl
from pathlib import Path

import httpx
import nats
import nats.errors
import pytest
from nats.aio.client import Client

from flowerbed.contracts.topology import STREAMS, SUBMISSIONS, inbox_prefix
from flowerbed.embedded.control import up
from flowerbed.embedded.errors import BadInput
from flowerbed.embedded.stack import Stack
from tests.integration.embedded.observing import component, eventually, process, record


def answers(stack: Stack, victim: str) -> set[tuple[str, int]]:
    """To questions and calls at each address while `victim` is killed."""
    context = ssl.create_default_context(cafile=str(stack.ca_file))
    headers = {"authorization": f"Bearer {stack.api_token}"}
    found = set()
    with httpx.Client(verify=context, headers=headers, timeout=20) as http:
        for number in range(60):
            if number == 10:
                process(stack, victim).signal(signal.SIGKILL)
            found.add(("read", http.get(f"{stack.gateway_url}/federations").status_code))
            found.add(("door", http.get(f"{stack.enrol_url}/ca.pem").status_code))
            call = http.post(f"{stack.enrol_url}/v1/enrol", json={"no": "invite"})
            found.add(("call", call.status_code))
    return found


def test_killed_replica_costs_nobody_an_answer(state_dir: Path) -> None:
    stack = up(state_dir, services=("lease", "gateway"), replicas=2)
    names = {item.name for item in record(stack).components if item.kind == "service"}
    assert names == {"lease", "lease-2", "gateway", "gateway-2"}
    with pytest.raises(BadInput, match="runs with --replicas 2, not 3; end it first"):
        up(state_dir, replicas=3)

    for victim in ("gateway", "lease", "lease-2"):
        assert answers(stack, victim) == {("read", 200), ("door", 200), ("call", 422)}
        eventually(lambda name=victim: component(stack, name).state == "ready")  # type: ignore[misc]


async def connected(stack: Stack, user: str, *nodes: str) -> Client:
    access = stack.nats_user(user)
    return await nats.connect(
        [f"nats://127.0.0.1:{stack.port(node)}" for node in nodes],
        user=access.user,
        password=access.password,
        inbox_prefix=inbox_prefix(user).encode(),
    )


async def until_acknowledged(client: Client, subject: str) -> int:
    for _ in range(100):
        try:
            return (await client.jetstream().publish(subject, b"{}", timeout=1)).seq
        except nats.errors.Error:  # nobody leads the stream yet
            await asyncio.sleep(0.1)
    raise AssertionError("the stream took nothing any more")


async def test_streams_go_on_when_a_node_of_nats_dies(state_dir: Path) -> None:
    stack = up(state_dir, services=(), nats_nodes=3)
    nodes = ("nats", "nats-2", "nats-3")
    admin = await connected(stack, "admin", "nats-2")
    submissions = await admin.jetstream().stream_info(SUBMISSIONS)
    assert submissions.cluster is not None
    for stream in STREAMS:
        assert (await admin.jetstream().stream_info(stream.name)).config.num_replicas == 3
    leader = str(submissions.cluster.leader)
    victim = next((name for name in nodes[1:] if leader.endswith(name[4:])), "nats")
    submitter = await connected(stack, "submitter", *(name for name in nodes if name != victim))
    first = await until_acknowledged(submitter, "fl.federation.submitted.acme.one")

    process(stack, victim).signal(signal.SIGKILL)

    again = await until_acknowledged(submitter, "fl.federation.submitted.acme.two")
    assert again > first
    eventually(lambda: component(stack, victim).restarts == 1)
    eventually(lambda: component(stack, victim).state == "ready")
    await submitter.close()
    await admin.close()
