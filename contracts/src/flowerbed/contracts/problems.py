"""Every broken rule of a FederationSpec at once, in a person's words."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic.alias_generators import to_camel, to_snake
from pydantic_core import ErrorDetails

from flowerbed.contracts.spec import FederationSpec
from flowerbed.contracts.values import Problem

_SHOWN = 80


class SpecRefused(ValueError):
    """A document that is no FederationSpec, with every reason."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(f"{p.path}: {p.allowed}, got {p.value}" for p in problems))
        self.problems = problems


def parse_spec(document: object) -> FederationSpec:
    """Check a decoded YAML or JSON document.

    Raises:
        SpecRefused: with one `Problem` for every rule that is broken.
    """
    if not isinstance(document, Mapping):
        raise SpecRefused(
            (Problem(path="", value=_shown(document), allowed="a mapping with apiVersion first"),)
        )
    problems: list[Problem] = []
    spec: FederationSpec | None = None
    try:
        spec = FederationSpec.model_validate(document)
    except ValidationError as error:
        problems += [_problem(details) for details in error.errors()]
    problems += _foreign_tenant(document)
    if problems or spec is None:
        raise SpecRefused(tuple(problems))
    return spec


def _foreign_tenant(document: Mapping[Any, Any]) -> list[Problem]:
    """A rule across two sections, checked on its own so that others cannot hide it."""
    own = _at(document, "metadata", "tenant") or "default"
    selected = _at(document, "spec", "client_selector", "tenant")
    if selected is None or selected == own:
        return []
    allowed = f"metadata.tenant {_shown(own)}: a federation selects its own tenant's clients"
    path = "spec.client_selector.tenant"
    return [Problem(path=path, value=_shown(selected), allowed=allowed)]


def _at(document: object, *path: str) -> object:
    for key in path:
        if not isinstance(document, Mapping):
            return None
        document = document.get(key, document.get(to_camel(key)))
    return document


def _problem(details: ErrorDetails) -> Problem:
    path = ".".join(_snake(str(part)) for part in details["loc"])
    value = "nothing" if details["type"] == "missing" else _shown(details["input"])
    return Problem(path=path, value=value, allowed=_allowed(details))


def _snake(part: str) -> str:
    return part if part.islower() else to_snake(part)


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
        case _:
            return details["msg"][:1].lower() + details["msg"][1:]


def _pattern(pattern: str) -> str:
    known = {r"^[0-9a-f]{64}$": "64 lower-case hex digits"}
    return known.get(pattern, f"text matching {pattern}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
