"""Flower's Control API: the one place that speaks it. Every call blocks, and may be repeated.

It is internal to Flower and moves between its releases; nothing else of ours depends on it.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.common.serde import fab_to_proto, user_config_from_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.run_pb2 import Run
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from flowerbed.contracts.run_bundle import ATTEMPT, FEDERATION, TENANT
from flowerbed.contracts.values import Scalar
from flowerbed.events.errors import NotFound, Rejected, Unavailable

T = TypeVar("T")

logger = logging.getLogger(__name__)

PAGE = 100
SEPARATOR = "."
"""Between a federation's id and a lease's, in the name of a node."""
_FINISHED, _UNREGISTERED = "finished", "unregistered"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowerRun:
    """`attempt`: of one federation's runs, from 1. `ended`: how it did, None while it is on."""

    run_id: int
    federation_id: str
    attempt: int
    ended: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowerNode:
    """A registered SuperNode, and what it was registered for."""

    node_id: int
    federation_id: str
    key: bytes


class SuperLink:
    def __init__(self, address: str, ca_file: Path) -> None:
        self._client = ControlHttpClient.from_server_address(
            address,
            insecure=False,
            root_certificates=ca_file.read_bytes(),
            interceptors=[],
        )

    def let_in(self, federation_id: str, keys: Mapping[str, str]) -> None:
        """Of the federation let the SuperNodes with these keys in, each by its lease's id, and no
        others. A key that was taken out is never let in again: that is Flower's rule.

        Raises:
            Unavailable: the SuperLink did not answer.
        """
        wanted = {raw_key(key): lease_id for lease_id, key in keys.items()}
        there = {node.key: node for node in self.nodes() if node.federation_id == federation_id}
        for key in there.keys() - wanted.keys():
            self.unregister(there[key].node_id)
            logger.info("a SuperNode whose lease is not held any more is kept out")
        for key in wanted.keys() - there.keys():
            name = f"{federation_id}{SEPARATOR}{wanted[key]}"
            request = RegisterNodeRequest(public_key=key, name=name)
            try:
                _asked(lambda: self._client.RegisterNode(request))  # noqa: B023
            except Rejected as error:
                logger.warning("the SuperNode of lease %s stays out: %s", wanted[key], error)
            else:
                logger.info("the SuperNode of lease %s is let in", wanted[key])

    def unregister(self, node_id: int) -> None:
        with suppress(NotFound):  # it was before
            _asked(lambda: self._client.UnregisterNode(UnregisterNodeRequest(node_id=node_id)))

    def nodes(self) -> list[FlowerNode]:
        """Those that are let in, whether they are there or not."""
        answer = _asked(lambda: self._client.ListNodes(ListNodesRequest()))
        found = []
        for node in answer.nodes_info:
            federation_id, is_ours, _ = node.name.partition(SEPARATOR)
            if node.status != _UNREGISTERED and is_ours:
                one = FlowerNode(
                    node_id=node.node_id, federation_id=federation_id, key=node.public_key
                )
                found.append(one)
        return found

    def run(self, run_id: int) -> FlowerRun | None:
        """None where the SuperLink knows nothing of it."""
        try:
            answer = _asked(lambda: self._client.ListRuns(ListRunsRequest(run_id=run_id)))
        except NotFound:
            return None
        return _run(answer.run_dict[run_id])

    def runs(self) -> Iterator[FlowerRun]:
        """All of ours, the newest first."""
        skip = 0
        while True:
            request = ListRunsRequest(limit=PAGE, skip=skip)
            page = _asked(lambda: self._client.ListRuns(request)).run_dict  # noqa: B023
            found = sorted(page.values(), key=lambda one: one.pending_at, reverse=True)
            yield from filter(lambda run: run.federation_id, map(_run, found))
            if len(page) < PAGE:
                return
            skip += PAGE

    def newest(self, federation_id: str) -> FlowerRun | None:
        """The federation's run with the highest attempt."""
        own = [run for run in self.runs() if run.federation_id == federation_id]
        return max(own, key=lambda run: run.attempt, default=None)

    def start(self, federation_id: str, tenant: str, attempt: int, fab: bytes) -> FlowerRun:
        """The federation's run of that attempt: the one that is there, or a new one.

        Raises:
            Unavailable: the SuperLink did not answer, or did not start it.
        """
        newest = self.newest(federation_id)
        if newest is not None and newest.attempt >= attempt:
            return newest
        config: dict[str, Scalar] = {FEDERATION: federation_id, TENANT: tenant, ATTEMPT: attempt}
        request = StartRunRequest(
            fab=fab_to_proto(Fab(hashlib.sha256(fab).hexdigest(), fab, {})),
            override_config=user_config_to_proto(config),
            federation="",
        )
        run_id = _asked(lambda: self._client.StartRun(request)).run_id
        if not run_id:
            raise Unavailable("the SuperLink started no run")
        return FlowerRun(run_id=run_id, federation_id=federation_id, attempt=attempt, ended=None)

    def stop(self, run_id: int) -> None:
        """End the run if it is on, and let what its ServerApp still says count no more."""
        run = self.run(run_id)
        if run is not None and run.ended is None:
            _asked(lambda: self._client.StopRun(StopRunRequest(run_id=run_id)))


def raw_key(key: str) -> bytes:
    """A key in OpenSSH's spelling, as Flower keeps it."""
    public = load_ssh_public_key(key.encode())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    return public_key_to_bytes(public)


def _run(found: Run) -> FlowerRun:
    config = user_config_from_proto(found.override_config)
    status = found.status
    words = f"{status.sub_status}: {status.details}" if status.details else status.sub_status
    return FlowerRun(
        run_id=found.run_id,
        federation_id=str(config.get(FEDERATION, "")),
        attempt=int(config.get(ATTEMPT, 0)),
        ended=words if status.status == _FINISHED else None,
    )


def _asked(call: Callable[[], T]) -> T:
    try:
        return call()
    except httpx.HTTPStatusError as error:
        words = error.response.text[:500]
        if error.response.status_code == httpx.codes.NOT_FOUND:
            raise NotFound(f"the SuperLink has no such thing: {words}") from error
        if error.response.status_code == httpx.codes.PRECONDITION_FAILED:
            raise Rejected(f"the SuperLink refuses it: {words}") from error
        raise Unavailable(
            f"the SuperLink answered {error.response.status_code}: {words}"
        ) from error
    except httpx.HTTPError as error:
        raise Unavailable(f"the SuperLink did not answer: {type(error).__name__}") from error
