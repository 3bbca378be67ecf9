"""A Flower Grid whose nodes are virtual: Ray's actors run the ClientApp, as in Flower's simulation.

The only module that knows Ray and the inside of Flower's simulation. As many clients run at the
same time as there are actors; each actor has its next message waiting while it runs one.
"""

import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.simulation.ray_transport.ray_actor import ClientAppActor, pool_size_from_resources
from ray import cloudpickle

from flowerbed.aggregator.simulation.errors import CannotSimulate
from flowerbed.contracts.simulation import LOCAL, Simulation
from flowerbed.flower_apps import seeded

logger = logging.getLogger(__name__)

OBJECT_STORE = 256 << 20
"""Bytes of shared memory for messages on their way; what does not fit is spilled to disk."""
DEPTH = 2
"""Messages that one actor has at a time, of which it runs one."""
LONGEST_REASON = 4000


def start_ray(simulation: Simulation, folder: str, app_folder: str | None) -> None:
    """One of our own, on loopback alone, or an existing cluster, which fetches the app's folder.

    Raises:
        CannotSimulate: there is no cluster at that address.
    """
    options: dict[str, Any] = {"log_to_driver": True, "logging_level": logging.WARNING}
    if simulation.ray_address == LOCAL:
        options |= {
            "include_dashboard": False,
            "_temp_dir": folder,
            "object_store_memory": OBJECT_STORE,
        }
    else:
        cloudpickle.register_pickle_by_value(seeded)  # type: ignore[no-untyped-call]
        environment = {} if app_folder is None else {"working_dir": app_folder}
        options |= {"address": simulation.ray_address, "runtime_env": environment}
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        detail = f"no Ray at {simulation.ray_address}: {str(error).splitlines()[0]}"
        raise CannotSimulate("ray-away", detail) from error


@dataclass(slots=True)
class _Slot:
    """One actor, and the next one once it has died."""

    resources: Mapping[str, float]
    actor: Any = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def living(self) -> Any:
        with self.lock:
            if self.actor is None:
                actor_class: Any = ClientAppActor  # Ray's decorator hides what it makes
                self.actor = actor_class.options(**self.resources).remote()
            return self.actor

    def bury(self, actor: Any) -> None:
        with self.lock:
            if self.actor is actor:
                self.actor = None


class RayGrid:
    """`contexts`: of each node; what an app keeps in its context's state stays in memory here."""

    def __init__(
        self, load: Callable[[], ClientApp], contexts: Mapping[int, Context], simulation: Simulation
    ) -> None:
        """
        Raises:
            CannotSimulate: Ray has no room for a single client.
        """
        resources = {
            "num_cpus": simulation.cpus_per_client,
            "num_gpus": simulation.gpus_per_client,
        }
        try:
            n_actors = min(pool_size_from_resources(dict(resources)), simulation.clients)
        except ValueError as error:
            has = ray.cluster_resources()  # type: ignore[no-untyped-call]
            detail = (
                f"a client wants {resources['num_cpus']:g} CPUs and {resources['num_gpus']:g} GPUs,"
                f" Ray has {has.get('CPU', 0):g} and {has.get('GPU', 0):g}"
            )
            raise CannotSimulate("no-room", detail) from error
        self._load = ray.put(load)
        self._contexts = dict(contexts)
        self._queue: deque[Message] = deque()
        self._busy: set[int] = set()
        self._done: dict[str, Message] = {}
        self._changed = threading.Condition()
        slots = [_Slot(resources) for _ in range(n_actors)]
        for slot in slots * DEPTH:
            threading.Thread(target=self._serve, args=(slot,), daemon=True).start()
        logger.info("%d clients run at the same time", n_actors)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        with self._changed:
            for message in messages:
                ids.append(uuid.uuid4().hex)
                message.metadata.__dict__["_message_id"] = ids[-1]
                self._queue.append(message)
            self._changed.notify_all()
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        with self._changed:
            return [self._done.pop(one) for one in list(message_ids) if one in self._done]

    def _serve(self, slot: _Slot) -> None:
        while True:
            message = self._next()
            node = message.metadata.dst_node_id
            reply = self._run(slot, message)
            with self._changed:
                self._busy.discard(node)
                self._done[message.metadata.message_id] = reply
                self._changed.notify_all()

    def _next(self) -> Message:
        """The oldest message whose node has nothing else to do: it remembers one after another."""
        with self._changed:
            while True:
                for message in self._queue:
                    if (node := message.metadata.dst_node_id) not in self._busy:
                        self._queue.remove(message)
                        self._busy.add(node)
                        return message
                self._changed.wait()

    def _run(self, slot: _Slot, message: Message) -> Message:
        node, actor = message.metadata.dst_node_id, slot.living()
        try:
            _, reply, context = ray.get(
                actor.run.remote(self._load, message, str(node), self._contexts[node])
            )
        except ray.exceptions.RayActorError as error:
            slot.bury(actor)
            logger.warning("the process of an app ended: %s", str(error).splitlines()[0])
            return _failed(message, ErrorCode.CLIENT_APP_CRASHED, "the app's process ended")
        except ray.exceptions.RayError as error:
            reason = str(getattr(error, "cause", error)).strip()
            return _failed(message, ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason)
        self._contexts[node] = context
        return reply  # type: ignore[no-any-return]  # Ray says nothing of it


def _failed(message: Message, code: int, reason: str) -> Message:
    return Message(Error(code, reason[:LONGEST_REASON]), reply_to=message)
