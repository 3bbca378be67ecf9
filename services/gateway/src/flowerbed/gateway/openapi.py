"""The OpenAPI document with every answer that a route may give: problems too, and the token."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts

from flowerbed.contracts.policy import RoundPolicy
from flowerbed.contracts.spec import FederationSpec
from flowerbed.gateway.auth import declared

PROBLEMS = {
    400: "It cannot be read, or does not say which tenant is meant.",
    401: "No token, or one that proves nothing.",
    403: "The role that is needed is missing.",
    404: "Nothing of that name is to be seen.",
    409: "It does not fit what is there now.",
    413: "The body is too large.",
    422: "A value is not valid; `errors` lists each.",
    429: "Too many requests; ask again after `Retry-After` seconds.",
    503: "A part does not answer now; ask again after `Retry-After` seconds.",
}

_PROBLEM = {
    "type": "object",
    "description": "RFC 9457. `code` is stable, `detail` is for people.",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}
_SECONDS = {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}


def written(name: str) -> dict[str, Any]:
    """For a route that reads a document that a person wrote: what it is, in YAML or JSON."""
    schema = {"schema": {"$ref": f"#/components/schemas/{name}"}}
    content = {"application/json": schema, "application/yaml": schema}
    return {"requestBody": {"required": True, "content": content}}


def _documents() -> dict[str, Any]:
    """The schemas of those documents, and of what is in them."""
    schemas: dict[str, Any] = {}
    for name, model in (("FederationSpec", FederationSpec), ("RoundPolicy", RoundPolicy)):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[name] = schema
    policy = schemas["RoundPolicy"].get("properties", {})
    schemas["PolicyChanges"] = {
        "type": "object",
        "description": "The changed keys of a round policy, and a reason for the history.",
        "properties": {**policy, "reason": {"type": "string", "maxLength": 1024}},
    }
    return schemas


def document(app: FastAPI) -> None:
    """From now on `/openapi.json` tells all of it."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = complete(
                get_openapi(title=app.title, version=app.version, routes=app.routes), roles(app)
            )
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it


def roles(app: FastAPI) -> dict[tuple[str, str], str]:
    """The role that each guarded route declares, by method and path."""
    found = {}
    for context in iter_route_contexts(app.routes):
        needs = declared(getattr(context, "dependencies", ()))
        for method in (context.methods or ()) if needs else ():
            assert needs is not None
            found[method.lower(), str(context.path_format)] = str(needs.role or "anybody")
    return found


def complete(
    schema: dict[str, Any], declared_roles: Mapping[tuple[str, str], str]
) -> dict[str, Any]:
    """Add what a route cannot know of: the door, and the errors of what it calls."""
    parts = schema.setdefault("components", {})
    parts["schemas"] = {**_documents(), **parts.get("schemas", {}), "Problem": _PROBLEM}
    for stale in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(stale, None)
    parts["responses"] = {str(status): _response(status) for status in PROBLEMS}
    parts["securitySchemes"] = {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "The API token of the stack, or a JWT of an OIDC issuer.",
        }
    }
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            if (role := declared_roles.get((method, path))) is not None:
                operation["x-role"] = role
                operation["security"] = [{"token": []}]
                for status in _answers(method, path, operation):
                    reference = {"$ref": f"#/components/responses/{status}"}
                    operation["responses"][str(status)] = reference
    return schema


def _answers(method: str, path: str, operation: Mapping[str, Any]) -> list[int]:
    always = [400, 401, 403, 413, 422, 429, 503]
    return [
        *always,
        *([404] if "{" in path or method != "get" else []),
        *([409] if method != "get" else []),
    ]


def _response(status: int) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": PROBLEMS[status],
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        },
    }
    if status in (429, 503):
        answer["headers"] = {"Retry-After": _SECONDS}
    return answer
