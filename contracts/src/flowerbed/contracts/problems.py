"""Every broken rule of a FederationSpec at once, in a person's words."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, cast, get_args

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from flowerbed.contracts.apps import APP_PATTERN
from flowerbed.contracts.parameter import snake
from flowerbed.contracts.policy import RoundPolicy
from flowerbed.contracts.spec import FederationSpec, Train
from flowerbed.contracts.strategy import Strategy
from flowerbed.contracts.telemetry import refused, without_secrets
from flowerbed.contracts.values import Problem

_SHOWN = 80


class SpecRefused(ValueError):
    """A document that is no FederationSpec, with every reason."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(f"{p.path}: {p.allowed}, got {p.value}" for p in problems))
        self.problems = problems


def parse_spec(document: object, *, otlp_allowed: Collection[str] | None = None) -> FederationSpec:
    """Check a decoded YAML or JSON document.

    `otlp_allowed`: the origins that spans may be sent to, where a spec is submitted. None where a
    spec is only read: what an operator allows is no rule of the document.

    Raises:
        SpecRefused: with one `Problem` for every rule that is broken.
    """
    if not isinstance(document, Mapping):
        raise SpecRefused(
            (Problem(path="", value=_shown(document), allowed="a mapping with apiVersion first"),)
        )
    problems = list(_written_twice(document))
    twice = {problem.path for problem in problems}
    spec: FederationSpec | None = None
    try:
        spec = FederationSpec.model_validate(document)
    except ValidationError as error:
        found = [_problem(details) for details in error.errors()]
        problems += [problem for problem in found if problem.path not in twice]
    problems += _foreign_tenant(document)
    if otlp_allowed is not None:
        problems += _foreign_endpoint(document, spec, otlp_allowed)
    if problems or spec is None:
        raise SpecRefused(tuple(problems))
    return spec


def parse_policy_changes(policy: RoundPolicy, changes: Mapping[str, object]) -> RoundPolicy:
    """`policy` with some keys changed, in either spelling.

    What a changed key stands instead of gives way: budget_seconds and deadline_seconds are two
    ways to say one thing, and a mode takes its own keys with it.

    Raises:
        SpecRefused: with one `Problem` for every rule that is broken.
    """
    section = "round_policy"
    problems = list(_written_twice(changes, RoundPolicy, f"{section}."))
    twice = {problem.path for problem in problems}
    changed = {snake(key): value for key, value in changes.items()}
    new: RoundPolicy | None = None
    try:
        new = RoundPolicy.model_validate({**_without_instead(policy, changed), **changed})
    except ValidationError as error:
        for details in error.errors():
            told = {**details, "loc": (section, *details["loc"])}
            if not details["loc"]:
                told["input"] = dict(changes)  # a rule across keys: show what was written
            problem = _problem(cast(ErrorDetails, told))
            problems += [problem] if problem.path not in twice else []
    if problems or new is None:
        raise SpecRefused(tuple(problems))
    return new


def _without_instead(policy: RoundPolicy, changed: Mapping[str, object]) -> dict[str, object]:
    kept = policy.model_dump(mode="json")
    gone: set[str] = set()
    if changed.get("budget_seconds") is not None:
        gone.add("deadline_seconds")
    elif "deadline_seconds" in changed:
        gone.add("budget_seconds")
    if changed.get("mode", policy.mode) != policy.mode:
        gone |= {"close_at", "late_updates"} if changed["mode"] == "buffered" else {"buffer_size"}
    return {key: value for key, value in kept.items() if key not in gone}


def _foreign_tenant(document: Mapping[Any, Any]) -> list[Problem]:
    """A rule across two sections, checked on its own so that others cannot hide it."""
    own = _at(document, "metadata", "tenant") or "default"
    selected = _at(document, "spec", "client_selector", "tenant")
    if selected is None or selected == own:
        return []
    allowed = f"metadata.tenant {_shown(own)}: a federation selects its own tenant's clients"
    path = "spec.client_selector.tenant"
    return [Problem(path=path, value=_shown(selected), allowed=allowed)]


def _foreign_endpoint(
    document: Mapping[Any, Any], spec: FederationSpec | None, allowed: Collection[str]
) -> list[Problem]:
    """Of an endpoint that is one, also if other rules are broken; whether it is, is another."""
    path = ("spec", "telemetry", "otlp_endpoint")
    endpoint = _at(document, *path)
    if spec is not None:
        endpoint = spec.spec.telemetry and spec.spec.telemetry.otlp_endpoint
    try:
        instead = refused(endpoint, allowed) if isinstance(endpoint, str) else None
    except ValueError:
        return []
    if instead is None:
        return []
    return [Problem(path=".".join(path), value=_shown(endpoint), allowed=instead)]


def _written_twice(
    section: Mapping[Any, Any], model: type[BaseModel] = FederationSpec, path: str = ""
) -> Iterator[Problem]:
    """Keys given in both spellings: one of the two would be ignored."""
    written: dict[str, list[str]] = {}
    for key in section:
        if isinstance(key, str):
            written.setdefault(snake(key), []).append(key)
    own = {*model.model_fields} if model is not Train else {*written}
    for name, keys in written.items():
        if len(keys) > 1 and name in own:
            at = path + name
            value = ", ".join(f"{key}: {_shown(section[key], at)}" for key in keys)
            yield Problem(path=at, value=value, allowed="one spelling of the key")
        # A strategy's parameters are named freely, as those of the app are.
        inner = Train if (model, name) == (Strategy, "params") else _section(model, name)
        below = section[keys[0]]
        if inner is not None and isinstance(below, Mapping):
            yield from _written_twice(below, inner, f"{path}{name}.")


def _section(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """What is written below that key, if that is a section; it may be one that can be left out."""
    field = model.model_fields.get(name)
    annotation = None if field is None else field.annotation
    for inner in (annotation, *get_args(annotation)):
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            return inner
    return None


def _aliases(model: type[BaseModel]) -> dict[str, str]:
    """Each camelCase key of the document and its snake_case spelling."""
    found = {to_camel(name): name for name in model.model_fields}
    for name in model.model_fields:
        if (inner := _section(model, name)) is not None:
            found |= _aliases(inner)
    return found


def _at(document: object, *path: str) -> object:
    for key in path:
        if not isinstance(document, Mapping):
            return None
        document = document.get(key, document.get(to_camel(key)))
    return document


def _problem(details: ErrorDetails) -> Problem:
    path = ".".join(_part(part) for part in details["loc"])
    value = "nothing" if details["type"] == "missing" else _shown(details["input"], path)
    if isinstance(details["input"], BaseModel):
        value = "the default"  # a rule across sections, of one that was left out
    return Problem(path=path, value=value, allowed=_allowed(details))


_ALIASES = _aliases(FederationSpec)


def _part(part: str | int) -> str:
    """Known keys in snake_case, whatever else a person wrote as it is."""
    text = _ALIASES.get(str(part), str(part))
    return text if text.isprintable() else repr(text)[1:-1]


def _allowed(details: ErrorDetails) -> str:
    context: dict[str, Any] = details.get("ctx", {})
    match details["type"]:
        case "missing":
            return "required"
        case "extra_forbidden":
            return "no such key"
        case "value_error":
            return str(context["error"])
        case "string_pattern_mismatch":
            return _pattern(str(context["pattern"]))
        case "literal_error":
            return f"one of {context['expected']}"
        case "model_type" | "dict_type":
            return "a mapping"
        case _:
            return details["msg"][:1].lower() + details["msg"][1:]


def _pattern(pattern: str) -> str:
    known = {
        r"^[0-9a-f]{64}$": "64 lower-case hex digits",
        APP_PATTERN: "builtin:NAME, or fab:SHA256 of an app that was pushed",
    }
    return known.get(pattern, f"text matching {pattern}")


def _shown(value: object, path: str = "") -> str:
    text = repr(value)
    if "telemetry" in path:
        text = without_secrets(text)  # an address may hold some, and a rejection is an event
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
