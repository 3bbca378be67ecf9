"""A client as the lease service sees it: a key pair, a certificate, and what it asks."""

import asyncio
import base64
from dataclasses import dataclass, field
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from joserfc import jws
from joserfc.jwk import KeySet

from flowerbed.contracts.door import Invite
from flowerbed.contracts.signed import ALGORITHM, Manifest, WorkOrder

DATASET = {"label": "hospital-0f7a1f4e-6a0e-4b3c-8a8e-1c2d3e4f5a6b", "sha256": "d" * 64}
FIRST_ANSWER = 60.0
"""Seconds: a test that waits longer for an answer has failed."""


def certificate_request(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, name: str = "whoever"
) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return request.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def client_cert(pem: str) -> str:
    """As the TLS front hands it on (RFC 9440)."""
    der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)
    return f":{base64.b64encode(der).decode()}:"


@dataclass(slots=True)
class Client:
    """One enrolled client. `http` reaches the client door, behind the TLS front."""

    invite: Invite
    http: httpx.AsyncClient
    key: ec.EllipticCurvePrivateKey
    certificate: str
    jwks: dict[str, Any] = field(default_factory=dict)

    @property
    def client_id(self) -> str:
        return self.invite.client_id

    async def ask(self, path: str, body: dict[str, Any]) -> httpx.Response:
        headers = {"Client-Cert": client_cert(self.certificate)}
        return await self.http.post(path, json=body, headers=headers)

    async def told(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self.ask(path, body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    # --- leases -----------------------------------------------------------------------------

    async def poll(self, seconds: float = 0, *known: tuple[str, int]) -> list[dict[str, Any]]:
        keys = [{"lease_id": lease, "epoch": epoch} for lease, epoch in known]
        answer = await self.told("/v1/leases/poll", {"wait_seconds": seconds, "known": keys})
        offers: list[dict[str, Any]] = answer["offers"]
        return offers

    async def offered(self) -> dict[str, Any]:
        """The one lease that there is, or will be."""
        (offer,) = await asyncio.wait_for(self.poll(30), FIRST_ANSWER)
        return offer

    async def claim(
        self, offer: dict[str, Any], update_form: str | None = None, **dataset: str
    ) -> httpx.Response:
        form = {} if update_form is None else {"update_form": update_form}
        body = {"epoch": offer["epoch"], "dataset": {**DATASET, **dataset}, **form}
        return await self.ask(f"/v1/leases/{offer['lease_id']}/claim", body)

    async def joined(self) -> dict[str, Any]:
        offer = await self.offered()
        answer = await self.claim(offer)
        assert answer.status_code == 200, answer.text
        return offer

    async def beat(self, lease: dict[str, Any]) -> httpx.Response:
        path = f"/v1/leases/{lease['lease_id']}/heartbeat"
        return await self.ask(path, {"epoch": lease["epoch"]})

    async def release(self, lease: dict[str, Any], reason: str = "") -> httpx.Response:
        path = f"/v1/leases/{lease['lease_id']}/release"
        return await self.ask(path, {"epoch": lease["epoch"], "reason": reason})

    # --- work -------------------------------------------------------------------------------

    async def next_work(self, lease: dict[str, Any], seconds: float = 0) -> str | None:
        path = f"/v1/leases/{lease['lease_id']}/work/next"
        answer = await self.told(path, {"epoch": lease["epoch"], "wait_seconds": seconds})
        order: str | None = answer["order"]
        return order

    async def ordered(self, lease: dict[str, Any]) -> WorkOrder:
        """The order that there is, or will be, its signature checked."""
        signed = await asyncio.wait_for(self.next_work(lease, 30), FIRST_ANSWER)
        assert signed is not None
        return WorkOrder.model_validate_json(self.verified(signed).payload)

    async def report(
        self, lease: dict[str, Any], order: WorkOrder, **changes: Any
    ) -> httpx.Response:
        uri = "" if order.upload is None else order.upload.uri
        body = {
            "epoch": lease["epoch"],
            "artifact": {"uri": uri, "sha256": "e" * 64, "size": 10} if order.upload else None,
            "n_examples": 12,
            "metrics": {"train-loss": 0.5},
            "train_seconds": 1.5,
            **changes,
        }
        return await self.ask(f"/v1/leases/{lease['lease_id']}/work/{order.work_id}/report", body)

    async def fail(
        self, lease: dict[str, Any], work_id: str, code: str = "app-failed", detail: str = "boom"
    ) -> httpx.Response:
        body = {"epoch": lease["epoch"], "code": code, "detail": detail}
        return await self.ask(f"/v1/leases/{lease['lease_id']}/work/{work_id}/failure", body)

    # --- signatures -------------------------------------------------------------------------

    def verified(self, signed: str) -> jws.CompactSignature:
        """Checked with nothing but the public keys that enrolment gave."""
        keys = KeySet.import_key_set(self.jwks)  # type: ignore[arg-type]  # its own typed dict
        return jws.deserialize_compact(signed, keys, algorithms=[ALGORITHM])

    def manifest(self, offer: dict[str, Any]) -> Manifest:
        return Manifest.model_validate_json(self.verified(offer["manifest"]).payload)
