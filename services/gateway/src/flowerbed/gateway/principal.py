"""Who asks, and what they may do: a role in each tenant."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum
from urllib.parse import quote

from flowerbed.contracts.actor import spelled
from flowerbed.contracts.issuers import ALL_TENANTS
from flowerbed.events.errors import Rejected
from flowerbed.events.http import Unauthorized

LOCAL_ISSUER = "local"


class Role(IntEnum):
    """Each may do what the ones before it may."""

    viewer = 1
    operator = 2
    admin = 3

    def __str__(self) -> str:
        return self.name


class Forbidden(Rejected):
    """Known, and not allowed."""

    code = "forbidden"
    status = 403


class TenantNeeded(Rejected):
    """Which of several tenants is meant?"""

    code = "tenant-needed"
    status = 400


@dataclass(frozen=True, slots=True)
class Principal:
    """`roles`: by tenant; `*` is all tenants."""

    subject: str
    issuer: str
    roles: Mapping[str, Role]

    @property
    def actor(self) -> str:
        """As events and the audit trail name them: unique, on one line, in ASCII."""
        if self.issuer == LOCAL_ISSUER:
            return self.subject
        return spelled(f"{self.issuer}#{quote(self.subject, safe='@:|+')}")

    def role_in(self, tenant: str | None) -> Role | None:
        """Their highest role in a tenant, or in all of them at once (None)."""
        held = [self.roles.get(name) for name in {tenant, ALL_TENANTS} if name is not None]
        return max((role for role in held if role is not None), default=None)

    def require(self, role: Role, tenant: str | None) -> None:
        """
        Raises:
            Forbidden: they have not this role in `tenant`, or not in all of them (None).
        """
        held = self.role_in(tenant)
        if held is None or held < role:
            where = "all tenants" if tenant is None else f"tenant {tenant!r}"
            has = f"{self.subject} has {held or 'no role'} there"
            raise Forbidden(f"this needs the role {role} in {where}; {has}")

    def tenants(self, role: Role) -> frozenset[str]:
        """Where they have at least this role; with `*` among them, everywhere."""
        return frozenset(name for name, held in self.roles.items() if held >= role)

    def scope(self, role: Role, tenant: str | None) -> str | None:
        """The one tenant that a request is about, or None for all: nothing outside is to be seen.

        Raises:
            Forbidden: not with this role.
            TenantNeeded: they have the role in several tenants and named none.
        """
        if tenant is not None:
            self.require(role, tenant)
            return tenant
        allowed = self.tenants(role)
        if ALL_TENANTS in allowed:
            return None
        if not allowed:
            raise Forbidden(f"this needs the role {role}; {self.subject} has it in no tenant")
        if len(allowed) > 1:
            named = ", ".join(sorted(allowed))
            raise TenantNeeded(f"say which tenant is meant with ?tenant=NAME: one of {named}")
        return min(allowed)


def local_principal() -> Principal:
    """Whoever shows the generated API token."""
    return Principal("local-token", LOCAL_ISSUER, {ALL_TENANTS: Role.admin})


_acting: ContextVar[Principal | None] = ContextVar("acting", default=None)


def acting() -> Principal:
    """Who gave the command that is being carried out.

    Raises:
        Unauthorized: nobody did.
    """
    principal = _acting.get()
    if principal is None:
        raise Unauthorized("a token is required: `Authorization: Bearer TOKEN`")
    return principal


@contextmanager
def acting_as(principal: Principal | None) -> Iterator[None]:
    """Everything inside is done for `principal`; what is handed on names them as the actor."""
    token = _acting.set(principal)
    try:
        yield
    finally:
        _acting.reset(token)


def current_actor() -> str | None:
    principal = _acting.get()
    return None if principal is None else principal.actor
