"""`flowerbed services | slo`: how the services do, and whether they do it well."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from flowerbed.cli.api import Api, Tenant
from flowerbed.cli.calling import Asking, call, example
from flowerbed.cli.output import FAILED, print_json
from flowerbed.cli.tables import one_line, print_table
from flowerbed.cli.watching import Watch, changes

app = typer.Typer(add_completion=False)
slo_app = typer.Typer(add_completion=False)


@app.command(cls=Asking, epilog=example("flowerbed services --watch"))
def services(watch: Watch = False) -> None:
    """Each service and replica: ready or why not, lags, dead letters. Exit code 1 if one is not."""
    api = call().api()
    found: list[dict[str, Any]] = []
    for found in changes(lambda: _ask(api), _standing) if watch else [_ask(api)]:
        if call().as_json:
            print_json(found)
        else:
            print_table(
                ("service", "replica", "status", "lags", "dead letters", "detail"),
                [row for one in found for row in _rows(one)],
            )
    if any(one["status"] != "ready" for one in found):
        raise typer.Exit(FAILED)


@slo_app.command(cls=Asking, epilog=example("flowerbed slo --hours 24"))
def slo(
    hours: Annotated[
        int, typer.Option("--hours", min=1, max=24 * 90, help="Over the last so many hours.")
    ] = 24 * 28,
    tenant: Tenant = None,
) -> None:
    """Service level indicators, their objectives, and what is left of the error budgets."""
    found = call().api().get("/slo", hours=hours, tenant=tenant, tries=2)
    if call().as_json:
        print_json(found)
        return
    rows = [
        (
            one["name"], _percent(one["ratio"]), _percent(one["objective"]),
            _percent(one["budget_left"]), f"{one['good']} of {one['total']}",
            _seconds(one.get("p50_seconds")), _seconds(one.get("p95_seconds")), one["means"],
        )
        for one in found["indicators"]
    ]  # fmt: skip
    print_table(
        ("indicator", "is", "objective", "budget left", "good", "p50", "p95", "means"), rows
    )


def _ask(api: Api) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get("/services", tries=2)["services"]
    return found


def _rows(service: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    letters = service["dead_letters"]
    return [
        (
            service["name"], one["replica"], one["status"],
            ", ".join(f"{name} {lag:g}" for name, lag in sorted(one["lags"].items()) if lag),
            "not known" if letters is None else letters, one_line(_trouble(one), 100),
        )
        for one in service["replicas"]
    ]  # fmt: skip


def _trouble(replica: Mapping[str, Any]) -> str:
    wrong = {**replica["checks"], **replica["failing"]}
    said = [f"{name}: {what}" for name, what in wrong.items() if what != "ok"]
    return "; ".join([replica["detail"], *said] if replica["detail"] else said)


def _standing(found: list[dict[str, Any]]) -> Any:
    return [
        (one["name"], one["dead_letters"], [(it["status"], _trouble(it)) for it in one["replicas"]])
        for one in found
    ]


def _percent(ratio: float | None) -> str:
    return "" if ratio is None else f"{100 * ratio:.1f} %"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"
