"""What is signed for a client: a lease's manifest, and each work order under it."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import uuid4

from flowerbed.artifact.blobs import Blobs
from flowerbed.contracts.apps import bundle_uri, is_pushed
from flowerbed.contracts.round import RoundEvaluationStarted
from flowerbed.contracts.server_app import MessagesPushed
from flowerbed.contracts.signed import (
    ISSUER,
    Download,
    Limits,
    Manifest,
    UpdateTerms,
    Upload,
    WholeMessage,
    WorkOrder,
)
from flowerbed.contracts.spec import FederationSpec
from flowerbed.lease.federations import OpenFederation
from flowerbed.lease.projections.leases import Lease
from flowerbed.lease.work import Exchange, Work

MANIFEST_VALIDITY = timedelta(minutes=10)
CLOCK_SKEW = timedelta(minutes=1)
LATE_UPLOAD = timedelta(minutes=10)
"""A presigned URL outlives the order a little: what arrives late is refused by its facts."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The store, and the bucket of what belongs to no federation."""

    blobs: Blobs
    bucket: str


def manifest(
    lease: Lease, federation: OpenFederation, tenant: str, at: datetime, stored: Stored
) -> Manifest:
    """The terms that a site reads before it claims."""
    spec, telemetry = federation.spec.spec, federation.spec.spec.telemetry
    return Manifest(
        **_claims(lease, federation, tenant, at, at + MANIFEST_VALIDITY),
        model_uri=spec.app if spec.model_ref is None else spec.model_ref.uri,
        model_sha256=None if spec.model_ref is None else spec.model_ref.sha256,
        strategy="server-app" if spec.is_whole else spec.strategy.name,
        hyper_parameters=spec.hyper_parameters,
        weighs_by_entropy=spec.strategy.weighting.entropy,
        dataset_uris=spec.dataset_spec.uris,
        dataset_shards=spec.dataset_spec.shards,
        dataset_hashes=spec.dataset_spec.hashes,
        limits=Limits(
            ttl_seconds=spec.lease.ttl_seconds,
            max_epochs=spec.lease.max_epochs,
            max_tokens=spec.lease.max_tokens,
        ),
        app_download=_bundle(federation, tenant, stored, at),
        otlp_endpoint=None if telemetry is None else telemetry.otlp_endpoint,
        otlp_protocol=None if telemetry is None else telemetry.otlp_protocol,
        update=update_terms(federation.spec),
        runtime=spec.runtime,
    )


def update_terms(spec: FederationSpec) -> UpdateTerms | None:
    """None where updates travel as the first release sends them."""
    update = spec.spec.update
    return None if update.is_full else UpdateTerms(**update.model_dump())


def _bundle(
    federation: OpenFederation, tenant: str, stored: Stored, at: datetime
) -> Download | None:
    """Where the site fetches the app before it claims; None for one that it has."""
    if not is_pushed(federation.spec.spec.app):
        return None
    uri = bundle_uri(stored.bucket, tenant, federation.code_hash)
    seconds = int((MANIFEST_VALIDITY + CLOCK_SKEW).total_seconds())
    return Download(url=_base_url(stored.blobs, uri, seconds, int(at.timestamp()) // 60))


def work_order(
    work: Work,
    lease: Lease,
    federation: OpenFederation,
    tenant: str,
    at: datetime,
    blobs: Blobs,
) -> WorkOrder:
    """One client's part of an exchange, with a presigned URL for each object it may touch."""
    exchange, seed = work.exchange, work.exchange.cohort[work.place].seed
    seconds = math.ceil((work.until + LATE_UPLOAD - at).total_seconds())
    minute = int(at.timestamp()) // 60
    seconds = min(60 * math.ceil(max(seconds, 60) / 60), 7 * 86_400)
    asked = _asked(exchange, work.place)
    frozen = None if isinstance(exchange, MessagesPushed) else exchange.frozen
    return WorkOrder(
        **_claims(lease, federation, tenant, at, work.until),
        work_id=work.work_id,
        round_number=exchange.round_number,
        attempt=exchange.attempt,
        seed=seed,
        download=Download(url=_base_url(blobs, asked["base"].uri, seconds, minute)),
        frozen=frozen,
        frozen_download=None
        if frozen is None
        else Download(url=_base_url(blobs, frozen.uri, seconds, minute)),
        upload=_upload(exchange, lease.client_id, federation.spec, blobs, seconds),
        dataset_sha256=lease.dataset_sha256 or "",
        **asked,
    )


def _asked(exchange: Exchange, place: int) -> dict[str, Any]:
    """What the order's message is: a whole ServerApp's has a content of its own."""
    if not isinstance(exchange, MessagesPushed):
        return {
            "exchange": exchange.exchange,
            "message_type": exchange.exchange,
            "config": exchange.config,
            "base": exchange.base,
        }
    pushed = exchange.cohort[place]
    is_train = pushed.message_type.partition(".")[0] == "train"
    return {
        "exchange": "train" if is_train else "evaluate",
        "message_type": pushed.message_type,
        "config": pushed.config,
        "base": pushed.content,
        "message": WholeMessage(
            message_id=pushed.message_id,
            group_id=pushed.group_id,
            node_id=pushed.node_id,
            place=pushed.place,
            n_nodes=exchange.n_nodes,
        ),
    }


def upload_uri(spec: FederationSpec, exchange: Exchange, client_id: str) -> str:
    """Where a client's update lies: one place for one work, written once."""
    artifacts = spec.spec.artifacts
    place = f"{exchange.federation_id}/{exchange.round_number}-{exchange.attempt}"
    ending = "recorddict" if isinstance(exchange, MessagesPushed) else "safetensors"
    return f"s3://{artifacts.bucket}/{artifacts.prefix}/updates/{place}/{client_id}.{ending}"


@lru_cache(maxsize=64)
def _base_url(blobs: Blobs, uri: str, seconds: int, minute: int) -> str:
    """One for all of a cohort that ask within the same minute: to sign one takes a while."""
    return blobs.presign_get(uri, seconds)


def _upload(
    exchange: Exchange, client_id: str, spec: FederationSpec, blobs: Blobs, seconds: int
) -> Upload | None:
    if isinstance(exchange, RoundEvaluationStarted):
        return None  # an evaluation's answer is its metrics
    return blobs.presign_put(upload_uri(spec, exchange, client_id), seconds)


def _claims(
    lease: Lease, federation: OpenFederation, tenant: str, at: datetime, until: datetime
) -> dict[str, str | int]:
    """The registered claims (RFC 7519, section 4.1) and whom and what they bind."""
    return {
        "iss": ISSUER,
        "aud": lease.client_id,
        "iat": int(at.timestamp()),
        "nbf": int((at - CLOCK_SKEW).timestamp()),
        "exp": math.ceil(until.timestamp()),
        "jti": str(uuid4()),
        "tenant": tenant,
        "federation_id": lease.federation_id,
        "client_id": lease.client_id,
        "lease_id": lease.lease_id,
        "lease_epoch": lease.epoch,
        "app": federation.spec.spec.app,
        "code_hash": federation.code_hash,
    }
