"""What is learned of a request while it is answered, for the row that the audit trail gets."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from flowerbed.gateway.principal import Role


@dataclass(slots=True)
class Notes:
    """`is_write`: it gets a row. `action`: what was done, where the path alone does not say it.
    `code`: of a refusal inside of an answer of 200."""

    is_write: bool
    tenant: str | None = None
    federation_id: str | None = None
    role: Role | None = None
    action: str | None = None
    code: str | None = None


_notes: ContextVar[Notes | None] = ContextVar("notes", default=None)


@contextmanager
def noting(notes: Notes) -> Iterator[None]:
    token = _notes.set(notes)
    try:
        yield
    finally:
        _notes.reset(token)


def note(
    *,
    tenant: str | None = None,
    federation_id: str | None = None,
    role: Role | None = None,
    action: str | None = None,
    code: str | None = None,
    is_write: bool | None = None,
) -> None:
    """Add to what is known of the request under way; what is None says nothing."""
    notes = _notes.get()
    if notes is None:
        return
    notes.tenant = tenant or notes.tenant
    notes.federation_id = federation_id or notes.federation_id
    notes.role = role or notes.role
    notes.action = action or notes.action
    notes.code = code or notes.code
    notes.is_write = notes.is_write if is_write is None else is_write
