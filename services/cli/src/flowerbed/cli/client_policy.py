"""`flowerbed client policy`: what this site allows of apps, tenants and training."""

from typing import Annotated, Any, TypeAlias

import typer

from flowerbed.cli.calling import Shown, call, example
from flowerbed.cli.choosing import StateDirOption
from flowerbed.cli.output import print_json
from flowerbed.runner.errors import BadInput
from flowerbed.runner.site_policy import SitePolicy
from flowerbed.runner.state import StateDir

app = typer.Typer(
    help="What this site allows: apps, tenants, epochs. The agent obeys it at once.",
    no_args_is_help=True,
)

APP = "fab:9f2c…"
"""In examples."""
RULES = {
    "max_local_epochs": "epochs of one work order",
    "max_epochs": "epochs of all work under one lease",
    "min_noise_multiplier": "noise that a federation must add",
    "max_clipping_norm": "norm that it must clip to",
}
SWITCHES = {"label_entropy": "a federation may weigh by how the site's labels are spread"}

AppArgument: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(metavar="[APP]...", help="fab:SHA256, or the digest alone.", show_default=False),
]
AnyApp: TypeAlias = Annotated[bool, typer.Option("--any-app", help="Every app that is pushed.")]
Builtin: TypeAlias = Annotated[
    bool, typer.Option("--builtin", help="The apps that ship with this version.")
]
Publishers: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--publisher",
        metavar="ed25519:KEY",
        help="Every app that its owner has signed; may be repeated.",
        show_default="none",
    ),
]
Tenants: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--tenant", metavar="NAME", help="May be repeated.", show_default="none"),
]


@app.command(cls=Shown, epilog=example("flowerbed client policy show"))
def show(state_dir: StateDirOption = None) -> None:
    """The rules as they are now."""
    _print(SitePolicy.load(StateDir.at(state_dir)))


@app.command(cls=Shown, epilog=example(f"flowerbed client policy allow {APP}"))
def allow(
    apps: AppArgument = None,
    any_app: AnyApp = False,
    builtin: Builtin = False,
    signed_by: Publishers = None,
    tenants: Tenants = None,
    state_dir: StateDirOption = None,
) -> None:
    """Let apps run here, or tenants have work done here. With one tenant, no other may any more."""
    _something(apps, any_app, builtin, signed_by, tenants)
    state = StateDir.at(state_dir)
    policy = SitePolicy.load(state)
    changes = _switched(any_app, builtin, to=True)
    changes["apps"] = _with(policy.apps, _digests(apps))
    changes["publishers"] = _with(policy.publishers, signed_by or [])
    if tenants:
        changes["tenants"] = _with(policy.tenants or (), tenants)
    _change(state, policy, changes)


@app.command(cls=Shown, epilog=example(f"flowerbed client policy deny {APP}"))
def deny(
    apps: AppArgument = None,
    any_app: AnyApp = False,
    builtin: Builtin = False,
    signed_by: Publishers = None,
    tenants: Tenants = None,
    state_dir: StateDirOption = None,
) -> None:
    """Take it back. Work under way ends with its order; the next one is refused."""
    _something(apps, any_app, builtin, signed_by, tenants)
    state = StateDir.at(state_dir)
    policy = SitePolicy.load(state)
    changes = _switched(any_app, builtin, to=False)
    changes["apps"] = _without(policy.apps, _digests(apps))
    changes["publishers"] = _without(policy.publishers, signed_by or [])
    if tenants:
        if policy.tenants is None:
            raise BadInput("every tenant is allowed: name the ones that are with `policy allow`")
        changes["tenants"] = _without(policy.tenants, tenants)
    _change(state, policy, changes)


@app.command("set", cls=Shown, epilog=example("flowerbed client policy set max_epochs=50"))
def set_rules(
    rules: Annotated[
        list[str],
        typer.Argument(
            metavar="RULE=VALUE...",
            help=f"{', '.join(RULES)}: a number, `none` ends a rule. {', '.join(SWITCHES)}: `true`"
            " or `false`.",
        ),
    ],
    state_dir: StateDirOption = None,
) -> None:
    """Bound what a federation may ask of this site."""
    state = StateDir.at(state_dir)
    _change(state, SitePolicy.load(state), dict(map(_rule, rules)))


_SWITCHED = {"true": True, "false": False}


def _rule(text: str) -> tuple[str, int | float | None]:
    name, _, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if name in SWITCHES:
        if value.strip() not in _SWITCHED:
            raise BadInput(f"{text!r}: true or false")
        return name, _SWITCHED[value.strip()]
    if name not in RULES:
        raise BadInput(f"no rule is called {name!r}: one of {', '.join((*RULES, *SWITCHES))}")
    if value.strip() == "none":
        return name, None
    try:
        return name, int(value) if value.strip().isdecimal() else float(value)
    except ValueError as error:
        raise BadInput(f"{text!r}: a number, or none") from error


def _something(*given: object) -> None:
    if not any(given):
        raise BadInput("name an app, or --any-app, --builtin, --publisher KEY or --tenant NAME")


def _switched(any_app: bool, builtin: bool, *, to: bool) -> dict[str, Any]:
    """The rules that are named, allowed or not."""
    named = {"any_app": any_app, "builtin_apps": builtin}
    return {rule: to for rule, is_named in named.items() if is_named}


def _digests(apps: list[str] | None) -> list[str]:
    from flowerbed.contracts.apps import PUSHED

    return [one.removeprefix(PUSHED) for one in apps or ()]


def _with(there: tuple[str, ...], more: list[str]) -> list[str]:
    return list(dict.fromkeys((*there, *more)))


def _without(there: tuple[str, ...], gone: list[str]) -> list[str]:
    if missing := [one for one in gone if one not in there]:
        raise BadInput(f"not allowed anyway: {', '.join(missing)}")
    return [one for one in there if one not in gone]


def _change(state: StateDir, policy: SitePolicy, changes: dict[str, Any]) -> None:
    changed = policy.changed(changes)
    state.make()
    changed.save(state)
    _print(changed)


def _print(policy: SitePolicy) -> None:
    if call().as_json:
        print_json(policy.model_dump(mode="json"))
        return
    if policy.any_app:
        apps = "every one that is pushed"
    else:
        apps = ", ".join(f"fab:{one}" for one in policy.apps) or "none that is pushed"
    tenants = ", ".join(policy.tenants or ()) or "none"
    rows = [
        ("apps", apps),
        ("publishers", ", ".join(policy.publishers) or "none"),
        ("builtin apps", "allowed" if policy.builtin_apps else "refused"),
        ("tenants", "the one it was invited to" if policy.tenants is None else tenants),
    ]
    rows += [
        (name, f"{value:g}" if (value := getattr(policy, name)) is not None else "no rule")
        for name in RULES
    ]
    rows += [(name, "yes" if getattr(policy, name) else "no") for name in SWITCHES]
    for name, words in rows:
        typer.echo(f"{name:<20} {words}")
