"""Read a document that a person wrote: YAML or JSON in, plain values out.

YAML 1.2's core schema, so `no` is a word and `1e-3` is a number, and a strict subset of it: no
anchors, aliases or tags, no second document, no key given twice. JSON follows the same rules.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

MAX_BYTES = 256 * 1024
MAX_DEPTH = 64

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Value = None | bool | int | float | str | list[Any] | dict[str, Any]


class DocumentUnreadable(ValueError):
    """The bytes are no document; the message names the line and the column."""


def read_document(raw: bytes, *, max_bytes: int = MAX_BYTES) -> object:
    """Decode one YAML or JSON document.

    Raises:
        DocumentUnreadable: too long, not UTF-8, not YAML or JSON, or outside of the subset.
    """
    if len(raw) > max_bytes:
        raise DocumentUnreadable(f"{len(raw)} bytes, at most {max_bytes} are read")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentUnreadable(f"byte {error.start} is not UTF-8") from error
    document = _read(text)
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DocumentUnreadable("half of a surrogate pair is no character") from error
    return document


def _read(text: str) -> object:
    if text.lstrip()[:1] not in ("{", "["):
        return _read_yaml(text)
    try:
        return _read_json(text)
    except json.JSONDecodeError as error:
        return _read_braced_yaml(text, error)


def _read_braced_yaml(text: str, json_error: json.JSONDecodeError) -> object:
    """`{a: 1}` is YAML; of what is neither, JSON's own complaint is the one that helps."""
    try:
        return _read_yaml(text)
    except DocumentUnreadable as error:
        if not isinstance(error.__cause__, yaml.YAMLError):
            raise
        place = f"line {json_error.lineno}, column {json_error.colno}"
        raise DocumentUnreadable(f"{place}: {_lower(json_error.msg)}") from json_error


# --- JSON -------------------------------------------------------------------


def _read_json(text: str) -> object:
    try:
        document = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_float=_finite,
            parse_constant=_finite,
            parse_int=_whole,
        )
    except RecursionError as error:
        raise DocumentUnreadable(f"nested deeper than {MAX_DEPTH}") from error
    if _depth(document) > MAX_DEPTH:
        raise DocumentUnreadable(f"nested deeper than {MAX_DEPTH}")
    return document


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise DocumentUnreadable(f"the key {_shown(key)} is given twice")
        found[key] = value
    return found


def _depth(document: object) -> int:
    deepest, level = 0, [document]
    while level:
        deepest += 1
        level = [
            child
            for value in level
            if isinstance(value, list | dict)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
    return deepest


def _finite(text: str) -> float:
    number = float(text.replace(".inf", "inf").replace(".nan", "nan"))
    if not math.isfinite(number):
        raise DocumentUnreadable(f"{_shown(text)} is not a finite number")
    return number


def _whole(text: str, radix: int = 10) -> int:
    try:
        return int(text, radix)
    except ValueError as error:  # Python refuses thousands of digits
        raise DocumentUnreadable(f"a number of {len(text)} digits is too long") from error


# --- YAML -------------------------------------------------------------------

_PLAIN: tuple[tuple[re.Pattern[str], Callable[[str], Any]], ...] = (
    (re.compile(r"~|null|Null|NULL|"), lambda text: None),
    (re.compile(r"true|True|TRUE"), lambda text: True),
    (re.compile(r"false|False|FALSE"), lambda text: False),
    (re.compile(r"[-+]?[0-9]+"), _whole),
    (re.compile(r"0o[0-7]+"), lambda text: _whole(text[2:], 8)),
    (re.compile(r"0x[0-9a-fA-F]+"), lambda text: _whole(text[2:], 16)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), _finite),
    (re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"), lambda text: _finite(text.lower())),
)
"""What an unquoted scalar may be besides text: the core schema of YAML 1.2."""


@dataclass(slots=True)
class _Node:
    """A list or mapping that is being read; a mapping also knows the key that waits."""

    value: list[Any] | dict[str, Any]
    key: str | None = None


def _read_yaml(text: str) -> object:
    try:
        return _build(yaml.parse(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        place = _place(error.problem_mark or error.context_mark)
        raise DocumentUnreadable(f"{place}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise DocumentUnreadable(_lower(" ".join(str(error).split()))) from error


def _build(events: Any) -> object:
    """Build the value from the parser's events, with a stack of our own: no recursion."""
    documents: list[Any] = []
    stack = [_Node(documents)]
    n_documents = 0
    for event in events:
        match event:
            case yaml.DocumentStartEvent():
                n_documents += 1
                if n_documents > 1:
                    _refuse(event, "a second document begins")
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                _plain_node(event)
                if len(stack) > MAX_DEPTH:
                    _refuse(event, f"nested deeper than {MAX_DEPTH}")
                node = _Node({} if isinstance(event, yaml.MappingStartEvent) else [])
                _put(stack[-1], node.value, event)
                stack.append(node)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                stack.pop()
            case yaml.ScalarEvent():
                _plain_node(event)
                _put(stack[-1], _scalar(event, stack[-1]), event)
            case yaml.AliasEvent():
                _refuse(event, "aliases are not read: write the value out")
    return documents[0] if documents else None


def _put(parent: _Node, value: _Value, event: yaml.NodeEvent) -> None:
    container, key = parent.value, parent.key
    if isinstance(container, list):
        container.append(value)
    elif key is not None:
        container[key] = value
        parent.key = None
    elif not isinstance(value, str):
        _refuse(event, "a key must be text")
    elif value in container:
        _refuse(event, f"the key {_shown(value)} is given twice")
    else:
        parent.key = value


def _scalar(event: yaml.ScalarEvent, parent: _Node) -> _Value:
    text: str = event.value
    is_key = isinstance(parent.value, dict) and parent.key is None
    if event.style or is_key:  # quoted, a block, or a key: always text
        return text
    for pattern, convert in _PLAIN:
        if pattern.fullmatch(text):
            try:
                value: _Value = convert(text)
            except DocumentUnreadable as error:
                _refuse(event, str(error))
            return value
    return text


def _plain_node(event: yaml.NodeEvent) -> None:
    if event.anchor is not None:
        _refuse(event, "anchors are not read: write the value out")
    if (tag := getattr(event, "tag", None)) not in (None, "!"):
        _refuse(event, f"the tag {_shown(str(tag))} is not read")


def _refuse(event: yaml.Event, message: str) -> NoReturn:
    raise DocumentUnreadable(_place(event.start_mark) + message)


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
