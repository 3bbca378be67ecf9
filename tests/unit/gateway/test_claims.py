"""Roles come out of claims as the issuer was set up, and nonsense gives none."""

from typing import Any

import pytest
from pydantic import ValidationError

from flowerbed.contracts.issuers import Issuer, read_issuers
from flowerbed.gateway.claims import roles_of
from flowerbed.gateway.principal import Role

URL = "https://id.example/realms/one"


def issuer(**more: Any) -> Issuer:
    return Issuer(issuer=URL, audience="flowerbed", **more)


def words(roles: dict[str, Role]) -> dict[str, str]:
    return {tenant: str(role) for tenant, role in roles.items()}


@pytest.mark.parametrize(
    ("told", "roles"),
    [
        ({"acme": "operator", "rival": "viewer"}, {"acme": "operator", "rival": "viewer"}),
        ({"acme": ["viewer", "admin", "operator"]}, {"acme": "admin"}),
        ({"*": "viewer", "acme": "admin"}, {"*": "viewer", "acme": "admin"}),
        (["acme:viewer", "acme:operator", "*:viewer"], {"acme": "operator", "*": "viewer"}),
        ("acme:admin", {"acme": "admin"}),
        ({"acme": "king", "a b": "admin", "": "admin", "rival": 3, "x": {"y": "admin"}}, {}),
        (["admin", ":admin", "acme:", 7, None, ["acme:admin"]], {}),
        (None, {}),
        (7, {}),
    ],
)
def test_the_roles_claim_gives_the_highest_role_of_each_tenant(
    told: Any, roles: dict[str, str]
) -> None:
    assert words(roles_of(issuer(), {"flowerbed_roles": told})) == roles


def test_a_claim_is_found_by_its_name_its_path_or_its_list_of_names() -> None:
    told = {"acme": "viewer"}
    address = "https://flowerbed.example/roles"
    for name, claims in (
        (address, {address: told}),
        ("app.roles", {"app": {"roles": told}}),
        (("resource_access", "fl.bed", "roles"), {"resource_access": {"fl.bed": {"roles": told}}}),
    ):
        found = roles_of(issuer(roles_claim=name), claims)
        assert words(found) == {"acme": "viewer"}, name
    assert roles_of(issuer(roles_claim="a.b.c"), {"a": {"b": "text"}}) == {}


def test_groups_give_the_roles_that_were_set_up_for_them() -> None:
    groups = {"fl-admins": {"*": "admin"}, "acme-ops": {"acme": "operator"}}
    known = issuer(groups_claim="groups", group_roles=groups)
    assert words(roles_of(known, {"groups": ["acme-ops", "strangers"]})) == {"acme": "operator"}
    both = {"groups": "acme-ops", "flowerbed_roles": {"acme": "admin", "rival": "viewer"}}
    assert words(roles_of(known, both)) == {"acme": "admin", "rival": "viewer"}


def test_an_issuer_speaks_only_for_the_tenants_that_it_was_given() -> None:
    told = {"flowerbed_roles": {"acme": "viewer", "rival": "admin", "*": "admin"}}
    assert words(roles_of(issuer(tenants=["acme"]), told)) == {"acme": "viewer"}


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example", "ftp://id.example", "id.example", "https://", "https://u:p@id.example",
        "https://id.example/?a=b", "https://id.example/#x", "http://127.0.0.1.example", "",
    ],
)  # fmt: skip
def test_an_issuers_address_is_https_and_plain(url: str) -> None:
    with pytest.raises(ValidationError):
        Issuer(issuer=url, audience="flowerbed")


def test_an_issuer_on_this_machine_needs_no_tls() -> None:
    for url in ("http://127.0.0.1:9/realms/x", "http://localhost:9", "http://[::1]:9"):
        assert Issuer(issuer=url, audience="flowerbed").issuer == url


@pytest.mark.parametrize(
    "wrong",
    [
        {"groups_claim": "groups"},
        {"group_roles": {"a": {"acme": "admin"}}},
        {"roles_claim": None},
        {"audience": ""},
        {"colour": "red"},
        {"groups_claim": "groups", "group_roles": {"a": {"acme": "king"}}},
        {"leeway_seconds": 3600},
    ],
)
def test_an_issuer_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        read_issuers([{"issuer": URL, "audience": "flowerbed", **wrong}])


def test_an_issuer_is_given_once() -> None:
    one = {"issuer": URL, "audience": "flowerbed"}
    with pytest.raises(ValueError, match="given twice"):
        read_issuers([one, one])
