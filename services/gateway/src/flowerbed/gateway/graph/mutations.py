"""What can be commanded. As by REST, the owner of the facts decides, and its refusal is shown."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import strawberry
from fastapi import Response
from pydantic import BaseModel, ValidationError
from strawberry.scalars import JSON

from flowerbed.events.documents import MAX_BYTES, DocumentUnreadable, read_document
from flowerbed.events.errors import Rejected
from flowerbed.gateway.command_routes import DocumentTooLong, Promotion, Reason, place
from flowerbed.gateway.graph.context import Info
from flowerbed.gateway.graph.kinds import kind_of
from flowerbed.gateway.graph.problems import Refused
from flowerbed.gateway.graph.queries import federation_row
from flowerbed.gateway.graph.types import FederatedTrainingJob, FederationKind, job_of
from flowerbed.gateway.noting import note
from flowerbed.gateway.principal import acting
from flowerbed.gateway.submissions import DocumentRefused
from flowerbed.gateway.views import View

M = TypeVar("M", bound=BaseModel)

Config = Annotated[
    JSON,
    strawberry.argument(
        description="A FederationSpec, or its `spec` part; as an object, or as YAML or JSON text."
    ),
]
Clients = Annotated[
    int | None, strawberry.argument(description="How many must join: `spec.min_clients`.")
]
Key = Annotated[str | None, strawberry.argument(description="The same key is the same federation.")]


class NotValid(Rejected):
    code = "not-valid"
    status = 422


class Done(View):
    """`events`: the types of what was recorded; none where it was so already."""

    tenant: str
    federation_id: str
    events: list[str]


async def _federation(root: strawberry.Parent[Any], info: Info) -> Any:
    return await federation_row(info, root.tenant, root.federation_id)


DoneKind = kind_of(
    Done,
    resolved={
        "federation": strawberry.field(
            resolver=_federation,
            graphql_type=FederationKind,
            description="As the read model has it: it hears of the events a moment later.",
        )
    },
)


async def _steer(info: Info, federation_id: str, verb: str, reason: str, tenant: str | None) -> Any:
    sources, scope = info.context.sources, info.context.may_steer(tenant, verb)
    told = checked(Reason, reason=reason)
    owner = await sources.reads.tenant_of_federation(scope, federation_id)
    note(tenant=owner, federation_id=federation_id, role=acting().role_in(owner))
    sources.hurry()
    body = {"tenant": owner, "reason": told.reason}
    path = f"/internal/federations/{federation_id}/{verb}"
    return _done(owner, federation_id, await sources.upstreams["orchestrator"].forward(
        "POST", path, body=body
    ))  # fmt: skip


@strawberry.type
class Mutation:
    @strawberry.mutation(description="Submit a FederationSpec under a name.")
    async def start_federated_training_job(
        self, info: Info, job_name: str, config: Config, clients: Clients = None,
        idempotency_key: Key = None, tenant: str | None = None,
    ) -> FederatedTrainingJob:  # fmt: skip
        info.context.may_submit()
        raw = written(config, job_name, clients, tenant)
        sources = info.context.sources
        sources.hurry()
        submitted = await sources.submissions.submit(raw, key=idempotency_key, tenant=tenant)
        owner = json.loads(raw)["metadata"].get("tenant", "default")
        return job_of(await info.context.rows.load((owner, submitted.federation_id)))

    @strawberry.mutation(
        graphql_type=DoneKind,
        description="Start no further exchange until it is resumed; the open one may end.",
    )
    async def pause(
        self, info: Info, id: strawberry.ID, reason: str = "", tenant: str | None = None
    ) -> Any:
        return await _steer(info, id, "pause", reason, tenant)

    @strawberry.mutation(graphql_type=DoneKind, description="Go on with a paused federation.")
    async def resume(
        self, info: Info, id: strawberry.ID, reason: str = "", tenant: str | None = None
    ) -> Any:
        return await _steer(info, id, "resume", reason, tenant)

    @strawberry.mutation(
        graphql_type=DoneKind, description="End it for good; what it has made stays."
    )
    async def cancel(
        self, info: Info, id: strawberry.ID, reason: str = "", tenant: str | None = None
    ) -> Any:
        return await _steer(info, id, "cancel", reason, tenant)

    @strawberry.mutation(
        graphql_type=DoneKind,
        description="Make an artifact its federation's current one of a channel."
        " `federationId` only where the same bytes are recorded in several.",
    )
    async def promote_artifact(
        self, info: Info, sha256: str, channel: str = "stable",
        federation_id: str | None = None, tenant: str | None = None,
    ) -> Any:  # fmt: skip
        scope = info.context.may_steer(tenant, "promoteArtifact")
        asked = checked(Promotion, channel=channel, federation_id=federation_id)
        sources = info.context.sources
        where = await place(sources.reads, scope, sha256, asked.federation_id)
        sources.hurry()
        path = f"/internal/artifacts/{sha256}/promote"
        body = {**where, "channel": asked.channel}
        answer = await sources.upstreams["artifact"].forward("POST", path, body=body)
        return _done(where["tenant"], where["federation_id"], answer)


def written(config: Any, job_name: str, clients: int | None, tenant: str | None) -> bytes:
    """The FederationSpec that is meant, as a document.

    Raises:
        Rejected: it is not to be read, or too long; its rules are checked when it is submitted.
    """
    try:
        given = read_document(config.encode()) if isinstance(config, str) else config
    except DocumentUnreadable as error:
        raise DocumentRefused(f"config cannot be read: {error}") from error
    if not isinstance(given, dict):
        raise DocumentRefused("config is a FederationSpec, or its `spec` part: a mapping of keys")
    is_whole = "spec" in given or "metadata" in given or "apiVersion" in given
    document = dict(given) if is_whole else {"apiVersion": "flowerbed/v1", "spec": dict(given)}
    metadata, spec = document.get("metadata", {}), document.get("spec")
    if isinstance(metadata, Mapping):
        owner = {"tenant": tenant} if tenant is not None and "tenant" not in metadata else {}
        document["metadata"] = {**metadata, **owner, "name": job_name}
    if clients is not None and isinstance(spec, Mapping):
        kept = {key: value for key, value in spec.items() if key not in ("minClients",)}
        document["spec"] = {**kept, "min_clients": clients}
    raw = json.dumps(document, ensure_ascii=False).encode()
    if len(raw) > MAX_BYTES:
        raise DocumentTooLong(f"a document has at most {MAX_BYTES} bytes")
    return raw


def checked(model: type[M], **values: Any) -> M:
    """
    Raises:
        NotValid: with what is wrong with each value.
    """
    try:
        return model(**values)
    except ValidationError as error:
        errors = [
            {"path": ".".join(str(part) for part in one["loc"]), "message": one["msg"]}
            for one in error.errors()
        ]
        raise NotValid(f"{len(errors)} values are not valid", errors=errors) from error


def _done(tenant: str, federation_id: str, answer: Response) -> Done:
    """
    Raises:
        Refused: the owner said no.
    """
    told = json.loads(bytes(answer.body) or b"null")
    if answer.status_code >= 400:
        raise Refused(answer.status_code, told)
    return Done(tenant=tenant, federation_id=federation_id, events=told.get("events", []))
