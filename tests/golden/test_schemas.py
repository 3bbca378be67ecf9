"""Events only grow: what the release before records and reads, this one reads and records.

A replica of each may run beside one of the other, so a schema of the same version keeps every
field as it was and gains none that must be there. Any other change is a new version.
"""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.releases import archived

SCHEMAS = Path(__file__).resolve().parents[2] / "contracts" / "schemas" / "events"
_VERSION = re.compile(r"(.+)\.v(\d+)\.json")
_WORDS = {"title", "description", "default"}

BEFORE = {
    Path(name).name: json.loads(text)
    for name, text in archived("0.1.0").items()
    if name.startswith("contracts/schemas/events/")
}


def differences(before: dict[str, Any], after: dict[str, Any], at: str = "") -> Iterator[str]:
    """Why one release could not read what the other writes."""
    for name, was in before.get("properties", {}).items():
        now = after.get("properties", {}).get(name)
        if now is None:
            yield f"{at}{name} is gone"
        elif _bare(was) != _bare(now):
            yield f"{at}{name} is another"
    if set(before.get("required", ())) != set(after.get("required", ())):
        yield f"{at or 'the event '}must have other fields than before"
    for name, was in before.get("$defs", {}).items():
        now = after.get("$defs", {}).get(name)
        if now is None:
            yield f"{name} is gone"
        elif "properties" in was:
            yield from differences(was, now, f"{name}.")
        elif _bare(was) != _bare(now):
            yield f"{name} is another"


def _bare(schema: Any) -> Any:
    """Without what only people read, and without what only the reader fills in."""
    if isinstance(schema, dict):
        return {key: _bare(value) for key, value in schema.items() if key not in _WORDS}
    if isinstance(schema, list):
        return [_bare(one) for one in schema]
    return schema


def test_there_is_a_release_to_compare_with() -> None:
    assert len(BEFORE) > 25


@pytest.mark.parametrize("name", BEFORE)
def test_an_event_of_the_release_before_has_only_grown(name: str) -> None:
    path = SCHEMAS / name
    if not path.exists():
        kind, version = _newest(name)
        assert version > _parts(name)[1], f"{kind} is gone"
        return
    assert list(differences(BEFORE[name], json.loads(path.read_text()))) == []


def _newest(name: str) -> tuple[str, int]:
    kind, _ = _parts(name)
    return kind, max((v for k, v in map(_parts, (p.name for p in SCHEMAS.iterdir())) if k == kind))


def _parts(name: str) -> tuple[str, int]:
    match = _VERSION.fullmatch(name)
    assert match is not None, name
    return match[1], int(match[2])


def test_a_field_that_goes_or_changes_or_must_be_there_is_found() -> None:
    before = BEFORE["fl.round.started.v1.json"]
    gone, other, needed, nested = (copy.deepcopy(before) for _ in range(4))
    del gone["properties"]["seed"]
    other["properties"]["seed"]["type"] = "string"
    needed["properties"]["more"] = {"type": "string"}
    needed["required"].append("more")
    del nested["$defs"]["CohortMember"]["properties"]["seed"]
    found = [list(differences(before, after)) for after in (gone, other, needed, nested)]
    assert found == [
        ["seed is gone"],
        ["seed is another"],
        ["the event must have other fields than before"],
        ["CohortMember.seed is gone"],
    ]


def test_a_field_that_may_be_missing_is_no_difference() -> None:
    before = BEFORE["fl.round.started.v1.json"]
    after = copy.deepcopy(before)
    after["properties"]["more"] = {"type": "string", "default": ""}
    assert list(differences(before, after)) == []
