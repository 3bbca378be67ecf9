"""One tenant's role sees none of another's rows, in any table of any service."""

from pathlib import Path

import pytest

from flowerbed.contracts.topology import SERVICES
from tests.e2e.documents import hospital
from tests.support.field import Field, until
from tests.support.rogue import Rogue

TENANTS = ("acme", "globex")
WITHOUT_TENANT = {"schema_migrations", "relay_marks", "roles", "release", "trace_cursor"}
"""Tables that hold nothing of any tenant: which migrations ran, where the relay is."""


@pytest.fixture(scope="module")
def two_tenants(field: Field, tmp_path_factory: pytest.TempPathFactory) -> Field:
    """Both have clients, a lease and a federation; acme's has run."""
    home: Path = tmp_path_factory.mktemp("globex")
    field.completed(field.submit(hospital(num_rounds=1)))
    document = hospital(client_selector={"tags": ["rival"]})
    document["metadata"]["tenant"] = "globex"
    rogue = Rogue.enrol(field.invite("globex", "rival"), home)
    identity = field.submit(document)
    rogue.join(identity, {"label": f"hospital-{'0' * 36}", "sha256": "f" * 64})
    until(lambda: has_begun(field, identity), "globex's client is joined, its base recorded")
    return field


def has_begun(field: Field, identity: str) -> bool:
    clients = field.api.federation(identity)["clients"]
    return any(one["status"] == "joined" for one in clients) and bool(
        field.api.get(f"/federations/{identity}/lineage")["checkpoints"]
    )


async def tables(field: Field, service: str) -> dict[str, bool]:
    """Every table, and whether it has a tenant."""
    rows = await field.rows(
        service,
        "SELECT t.tablename AS name, EXISTS (SELECT FROM information_schema.columns c"
        " WHERE c.table_schema = 'public' AND c.table_name = t.tablename"
        " AND c.column_name = 'tenant') AS has_tenant"
        " FROM pg_tables t WHERE t.schemaname = 'public'",
    )
    return {row["name"]: row["has_tenant"] for row in rows}


@pytest.mark.parametrize("service", SERVICES)
async def test_a_tenant_sees_its_own_rows_and_no_others_in_every_table(
    two_tenants: Field, service: str
) -> None:
    found = await tables(two_tenants, service)
    assert {name for name, has in found.items() if not has} <= WITHOUT_TENANT
    for table in (name for name, has in found.items() if has):
        query = f"SELECT tenant, count(*) AS n FROM {table} GROUP BY tenant"
        everything = {r["tenant"]: r["n"] for r in await two_tenants.rows(service, query)}
        for tenant in (*TENANTS, "nobody"):
            seen = await two_tenants.rows(service, query, role="app", tenant=tenant)
            assert {r["tenant"]: r["n"] for r in seen} == {
                name: n for name, n in everything.items() if name == tenant
            }, table
        assert await two_tenants.rows(service, query, role="app") == [], table


@pytest.mark.parametrize("service", SERVICES)
async def test_both_tenants_have_rows_to_hide(two_tenants: Field, service: str) -> None:
    query = "SELECT DISTINCT tenant FROM events"
    assert {row["tenant"] for row in await two_tenants.rows(service, query)} >= set(TENANTS)


@pytest.mark.parametrize("service", SERVICES)
async def test_the_services_role_cannot_bypass_row_level_security(
    two_tenants: Field, service: str
) -> None:
    (role,) = await two_tenants.rows(
        service,
        "SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user",
        role="app",
    )
    assert role == {"rolsuper": False, "rolbypassrls": False}
    owners = await two_tenants.rows(
        service,
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind = 'r' AND pg_get_userbyid(relowner) = current_user",
        role="app",
    )
    assert owners == []


async def test_events_cannot_be_changed_by_the_service(two_tenants: Field) -> None:
    for service in SERVICES:
        for forbidden in ("UPDATE events SET data = '{}'", "DELETE FROM events"):
            with pytest.raises(Exception, match="permission denied"):
                await two_tenants.rows(service, forbidden, role="app", tenant="acme")
