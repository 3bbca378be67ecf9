"""`python -m flowerbed.aggregator.simulation`: one federation's virtual clients, until it is over.

Started by the aggregator-bridge, which writes the assignment to standard input. It keeps nothing:
killed, it is started again, and its clients go on with whatever work is open.
"""

import asyncio
import logging
import os
import signal
import sys
import threading

from flwr.app import Context, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from pydantic import SecretStr

from flowerbed.aggregator.relay import Relay
from flowerbed.aggregator.relay_works import FederationOver, LeaseWorks
from flowerbed.aggregator.simulation.assignment import CANNOT, OVER, Assignment
from flowerbed.aggregator.simulation.errors import CannotSimulate
from flowerbed.aggregator.simulation.loading import VirtualApp, virtual_app
from flowerbed.aggregator.simulation.members import decline, stay
from flowerbed.aggregator.simulation.partitions import Partition, partitions
from flowerbed.aggregator.simulation.ray_grid import RayGrid, start_ray
from flowerbed.artifact.blobs import Blobs
from flowerbed.contracts.ids import flower_number

logger = logging.getLogger("flowerbed.simulation")


async def simulate(assignment: Assignment) -> int:
    """The process's exit code."""
    works = LeaseWorks(
        assignment.lease_urls,
        SecretStr(assignment.internal_token),
        assignment.federation_id,
        assignment.tenant,
    )
    blobs = Blobs(assignment.s3_endpoint, assignment.s3_access_key, assignment.s3_secret_key)
    simulation = assignment.simulation
    try:
        try:
            app = await asyncio.to_thread(virtual_app, assignment, blobs)
            parts = await asyncio.to_thread(partitions, simulation, assignment.spec.spec.app)
            app_folder = None if app.folder is None else str(app.folder)
            start_ray(simulation, str(assignment.ray_folder), app_folder)
            grid = RayGrid(app.load, _contexts(assignment, app, parts), simulation)
        except CannotSimulate as reason:
            logger.warning("it cannot be simulated here: %s: %s", reason.code, reason.detail)
            await decline(works, simulation.clients, reason)
            return CANNOT
        nodes = {one.client_id: one.node_id for one in parts}
        relay = Relay(grid, works, nodes, blobs, assignment.folder)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stay(works, parts))
            tasks.create_task(_carry(relay))
    except* FederationOver:
        pass
    return OVER


async def _carry(relay: Relay) -> None:
    """Raises: FederationOver: once it is."""
    await relay.run()
    raise FederationOver("the federation is over")


def _contexts(
    assignment: Assignment, app: VirtualApp, parts: tuple[Partition, ...]
) -> dict[int, Context]:
    run_id = flower_number(assignment.federation_id)
    TaskIdentity.run_id = TaskIdentity.task_id = run_id
    TaskIdentity.node_id = 1
    return {
        one.node_id: Context(
            run_id=run_id,
            node_id=one.node_id,
            node_config=one.node_config,
            state=RecordDict(),
            run_config=dict(app.run_config),
        )
        for one in parts
    }


def _end_with_parent() -> None:
    """The pipe's end ends this process and all that Ray has started: they are one group."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, name="pipe", daemon=True).start()


def main() -> int:
    if os.getpgid(0) != os.getpid():
        os.setpgid(0, 0)
    assignment = Assignment.model_validate_json(sys.stdin.buffer.readline())
    _end_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return asyncio.run(simulate(assignment))


if __name__ == "__main__":
    # What Ray and its threads still do does not matter: the group is ended by whoever started it.
    code = main()
    sys.stdout.flush()
    os._exit(code)
