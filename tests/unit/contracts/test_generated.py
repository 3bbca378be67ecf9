"""The generated files are what the contracts say today."""

import json
from typing import Any

from flowerbed.contracts.catalogue import EVENTS
from flowerbed.contracts.spec import builtin_apps
from flowerbed.flower_apps import registry
from scripts.generate_contracts import CONTRACTS, ROOT, SCHEMAS, generated


def test_no_generated_file_is_stale_missing_or_left_over() -> None:
    files = generated()
    stale = [
        str(path.relative_to(ROOT))
        for path, text in files.items()
        if not path.is_file() or path.read_text() != text
    ]
    assert stale == [], "run make generate"
    assert set(SCHEMAS.rglob("*.json")) <= set(files)


def test_every_event_has_a_schema_and_a_channel() -> None:
    document: dict[str, Any] = json.loads((CONTRACTS / "asyncapi.json").read_text())
    told = json.dumps(document["channels"])
    for event in EVENTS:
        assert (SCHEMAS / "events" / f"{event.type}.v{event.schema_version}.json").is_file()
        assert event.type in told
    assert "fl.federation.submitted" in told


def test_the_code_hashes_are_of_the_code_that_is_here() -> None:
    assert builtin_apps() == {name: registry.code_hash(name) for name in registry.BUILTIN}
