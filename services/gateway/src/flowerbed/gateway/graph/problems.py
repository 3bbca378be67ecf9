"""Our problems as GraphQL errors: `extensions` say what REST says, and never more.

{"message": "no federation fed-x is known",
 "extensions": {"code": "not-found", "status": 404}}
"""

import logging
from typing import Any

from graphql import GraphQLError
from strawberry.extensions import MaskErrors

from flowerbed.events.errors import Conflict, FlowerbedError, NotFound, Rejected, Unavailable
from flowerbed.events.http import RETRY_AFTER, Unauthorized
from flowerbed.gateway.noting import note

logger = logging.getLogger(__name__)


class Refused(FlowerbedError):
    """The service that owns the facts said no; `problem` is its own."""

    def __init__(self, status: int, problem: Any) -> None:
        self.problem = dict(problem) if isinstance(problem, dict) else {}
        self.status = status
        super().__init__(str(self.problem.get("detail") or f"a service answered {status}"))


def is_ours(error: GraphQLError) -> bool:
    """A resolver raised it; what is wrong with the document itself is said by GraphQL."""
    return error.original_error is not None and not isinstance(error.original_error, GraphQLError)


class Problems(MaskErrors):
    """Every error that a resolver raised becomes a problem, or `internal-error`."""

    def __init__(self) -> None:
        super().__init__(should_mask_error=is_ours)

    def anonymise_error(self, error: GraphQLError) -> GraphQLError:
        message, told = problem_of(error.original_error)
        note(code=str(told["code"]))
        return GraphQLError(
            message,
            nodes=error.nodes,
            source=error.source,
            positions=error.positions,
            path=error.path,
            extensions=told,
        )


def problem_of(error: Exception | None) -> tuple[str, dict[str, Any]]:
    """What is said of it, as HTTP does (`flowerbed.events.http`)."""
    match error:
        case Rejected():
            more: dict[str, Any] = {"errors": list(error.errors)} if error.errors else {}
            return str(error), {"code": error.code, "status": error.status, **more}
        case Refused():
            kept = {key: error.problem[key] for key in ("errors",) if key in error.problem}
            code = str(error.problem.get("code") or "refused")
            return str(error), {"code": code, "status": error.status, **kept}
        case NotFound():
            return str(error), {"code": "not-found", "status": 404}
        case Conflict():
            return str(error), {"code": "conflict", "status": 409}
        case Unavailable():
            told = {"code": "unavailable", "status": 503, "retryAfter": int(RETRY_AFTER)}
            return str(error), told
        case Unauthorized():
            return str(error), {"code": "unauthorized", "status": 401}
        case _:
            return "an error of ours; the log has it", {"code": "internal-error", "status": 500}


def log_unexpected(errors: list[GraphQLError]) -> None:
    for error in errors:
        if is_ours(error) and not isinstance(error.original_error, FlowerbedError):
            logger.error("GraphQL %s failed", error.path, exc_info=error.original_error)
