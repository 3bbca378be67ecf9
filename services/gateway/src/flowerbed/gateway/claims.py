"""Roles out of a token's claims: a pure function of the claims and what was set up."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flowerbed.contracts.event import is_token
from flowerbed.contracts.issuers import ALL_TENANTS, Claim, Issuer
from flowerbed.gateway.principal import Role

MOST_GRANTS = 1000
"""More tenants than a person has. What lies beyond is left out."""


def roles_of(issuer: Issuer, claims: Mapping[str, Any]) -> dict[str, Role]:
    """The highest role in each tenant. What cannot be understood gives nothing."""
    roles: dict[str, Role] = {}
    for tenant, role in _granted(issuer, claims):
        if issuer.tenants is not None and tenant not in issuer.tenants:
            continue
        if tenant in roles or len(roles) < MOST_GRANTS:
            roles[tenant] = max(role, roles.get(tenant, role))
    return roles


def _granted(issuer: Issuer, claims: Mapping[str, Any]) -> Iterator[tuple[str, Role]]:
    if issuer.roles_claim is not None:
        yield from _pairs(_told(_claim(claims, issuer.roles_claim)))
    if issuer.groups_claim is not None:
        for group in _words(_claim(claims, issuer.groups_claim)):
            yield from _pairs(issuer.group_roles.get(group, {}).items())


def _told(value: Any) -> Iterable[tuple[Any, Any]]:
    """`{"tenant": "role"}`, also with a list of roles, or `["tenant:role"]`."""
    if isinstance(value, Mapping):
        return [(tenant, role) for tenant, told in value.items() for role in _words(told)]
    parts = [word.rpartition(":") for word in _words(value)]
    return [(tenant, role) for tenant, _, role in parts]


def _pairs(told: Iterable[tuple[Any, Any]]) -> Iterator[tuple[str, Role]]:
    for tenant, role in told:
        is_tenant = isinstance(tenant, str) and (tenant == ALL_TENANTS or is_token(tenant))
        if is_tenant and role in Role.__members__:
            yield tenant, Role[role]


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _claim(claims: Mapping[str, Any], name: Claim) -> Any:
    """By its whole name first: names of claims may hold dots, as those that are addresses do."""
    if isinstance(name, str):
        if name in claims:
            return claims[name]
        name = tuple(name.split("."))
    found: Any = claims
    for part in name:
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found
