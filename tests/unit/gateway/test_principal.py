"""Who may do what where, and who cannot be mistaken for somebody else."""

import pytest

from flowerbed.events.http import Unauthorized
from flowerbed.gateway.principal import (
    Forbidden,
    Principal,
    Role,
    TenantNeeded,
    acting,
    acting_as,
    current_actor,
    local_principal,
)


def principal(**roles: str) -> Principal:
    named = {("*" if tenant == "all" else tenant): Role[role] for tenant, role in roles.items()}
    return Principal("alice", "https://id.example", named)


@pytest.mark.parametrize(
    ("roles", "role", "tenant", "is_allowed"),
    [
        ({"acme": "viewer"}, "viewer", "acme", True),
        ({"acme": "viewer"}, "operator", "acme", False),
        ({"acme": "admin"}, "viewer", "acme", True),
        ({"acme": "admin"}, "viewer", "rival", False),
        ({"acme": "admin"}, "viewer", None, False),
        ({"all": "viewer", "acme": "admin"}, "admin", "acme", True),
        ({"all": "viewer", "acme": "admin"}, "admin", "rival", False),
        ({"all": "operator"}, "operator", None, True),
        ({"all": "operator", "acme": "viewer"}, "operator", "acme", True),
        ({}, "viewer", "acme", False),
    ],
)
def test_a_role_is_required_in_a_tenant(
    roles: dict[str, str], role: str, tenant: str | None, is_allowed: bool
) -> None:
    asked = principal(**roles)
    if is_allowed:
        asked.require(Role[role], tenant)
    else:
        with pytest.raises(Forbidden, match=f"this needs the role {role}"):
            asked.require(Role[role], tenant)


def test_without_a_name_the_scope_is_the_one_tenant_or_all_of_them() -> None:
    assert principal(acme="viewer").scope(Role.viewer, None) == "acme"
    assert principal(all="viewer").scope(Role.viewer, None) is None
    assert principal(all="viewer", acme="admin").scope(Role.admin, None) == "acme"
    assert principal(all="viewer").scope(Role.viewer, "rival") == "rival"


def test_with_several_tenants_one_must_be_named() -> None:
    asked = principal(acme="viewer", rival="operator")
    with pytest.raises(TenantNeeded, match="one of acme, rival"):
        asked.scope(Role.viewer, None)
    assert asked.scope(Role.operator, None) == "rival"
    assert asked.scope(Role.viewer, "acme") == "acme"


def test_without_the_role_there_is_no_scope() -> None:
    for tenant in (None, "acme", "rival"):
        with pytest.raises(Forbidden):
            principal(acme="viewer").scope(Role.admin, tenant)


def test_an_actor_is_one_line_of_ascii_and_names_its_issuer() -> None:
    assert local_principal().actor == "local-token"
    posing = Principal("local-token", "https://id.example", {})
    assert posing.actor == "https://id.example#local-token"
    strange = Principal("Zoë\r\nx: y #\0", "https://id.example", {}).actor
    assert strange.isascii() and strange.isprintable()
    assert strange != Principal("Zoë", "https://id.example", {}).actor


def test_nobody_acts_unless_somebody_was_named() -> None:
    with pytest.raises(Unauthorized):
        acting()
    with acting_as(principal(acme="viewer")):
        assert acting().subject == "alice"
        assert current_actor() == "https://id.example#alice"
    assert current_actor() is None
