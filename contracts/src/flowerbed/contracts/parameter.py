"""Values that a person may give an app or a strategy, and how their names are spelled."""

import math
from typing import Annotated

from pydantic import AfterValidator, PlainValidator
from pydantic.alias_generators import to_snake

from flowerbed.contracts.values import Scalar

TOLD_BY_US = frozenset(("server_round", "proximal_mu"))
"""What a client app hears from the control plane; no parameter of its own may hide it."""


def _scalar(value: object) -> Scalar:
    """One rule for one value: a union would complain once for each of its members."""
    match value:
        case bool():
            return value
        case int() if -(2**63) <= value < 2**63:
            return value
        case float() if math.isfinite(value):
            return value
        case str():
            return _text(value)
        case _:
            raise ValueError("text, a finite number of at most 64 bits, or a boolean")


def _text(text: str) -> str:
    """What Postgres can keep and JSON can carry."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("text without NUL and lone surrogates")
    return text


def _parameter_name(name: str) -> str:
    if name in TOLD_BY_US:
        raise ValueError("a name that is not the control plane's own")
    if len(name) > 64 or not (name.isascii() and name.isidentifier()) or name != name.lower():
        raise ValueError("a name in snake_case of at most 64 letters, digits and _")
    return name


Parameter = Annotated[Scalar, PlainValidator(_scalar, json_schema_input_type=Scalar)]
ParameterName = Annotated[str, AfterValidator(_parameter_name)]
Text = Annotated[str, AfterValidator(_text)]


def snake(key: str) -> str:
    """The snake_case spelling of a key that a person wrote in either."""
    return key if key == key.lower() else to_snake(key)
