"""A client of the door that is written by hand: it can be honest, and it can be anything else."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from joserfc import jws
from joserfc.jwk import KeySet

from flowerbed.contracts.signed import ALGORITHM, WorkOrder
from flowerbed.runner.enrol import ensure_enrolled
from flowerbed.runner.identity import IdentityStore
from flowerbed.runner.state import StateDir

Json = dict[str, Any]


@dataclass
class Rogue:
    """An enrolled client with its own certificate. Every call is one HTTP request."""

    client_id: str
    tenant: str
    http: httpx.Client
    lease_id: str = ""
    epoch: int = 0

    @classmethod
    def enrol(cls, invite: str, home: Path) -> "Rogue":
        state = StateDir.at(home)
        identity = ensure_enrolled(state, invite)
        context = IdentityStore(state).client_context(identity)
        http = httpx.Client(base_url=identity.client_url, verify=context, timeout=60)
        return cls(identity.client_id, identity.tenant, http)

    def post(self, path: str, body: Json) -> httpx.Response:
        return self.http.post(path, json=body)

    def offers(self, wait_seconds: float = 0) -> list[Json]:
        answer = self.post("/v1/leases/poll", {"wait_seconds": wait_seconds})
        offers: list[Json] = answer.raise_for_status().json()["offers"]
        return offers

    def join(self, federation_id: str, dataset: Json) -> None:
        offer = next(o for o in self.offers(30) if o["federation_id"] == federation_id)
        self.lease_id, self.epoch = offer["lease_id"], offer["epoch"]
        self.post(
            f"/v1/leases/{self.lease_id}/claim", {"epoch": self.epoch, "dataset": dataset}
        ).raise_for_status()

    def next_order(self) -> WorkOrder | None:
        """The next work order, its signature checked; None when the lease has ended."""
        while True:
            answer = self.post(
                f"/v1/leases/{self.lease_id}/work/next", {"epoch": self.epoch, "wait_seconds": 30}
            )
            if answer.status_code == 410:
                return None
            token = answer.raise_for_status().json()["order"]
            if token is not None:
                return self.read(token)

    def read(self, token: str) -> WorkOrder:
        keys = KeySet.import_key_set(self.http.get("/.well-known/jwks.json").json())
        signed = jws.deserialize_compact(token, keys, algorithms=[ALGORITHM])
        return WorkOrder.model_validate_json(signed.payload)

    def report(self, order: WorkOrder, body: Json) -> httpx.Response:
        path = f"/v1/leases/{self.lease_id}/work/{order.work_id}/report"
        return self.post(path, {"epoch": self.epoch, "train_seconds": 0.0, **body})
