"""Services of the release before go on working while this release's first migrations are applied.

So these only add. What takes away, or binds what the older code writes, comes `.after`.
"""

import re
from pathlib import Path

import pytest

from flowerbed.events.migrate import is_after
from tests.architecture.imports import ROOT
from tests.support.releases import archived

BEFORE = {name: text for name, text in archived("0.1.0").items() if name.endswith(".sql")}
TODAY = {
    str(path.relative_to(ROOT)): path
    for folder in ("events", "services")
    for path in (ROOT / folder).glob("**/src/flowerbed/*/migrations/*.sql")
}
NEW = {name: path for name, path in TODAY.items() if name not in BEFORE}

_COMMENT = re.compile(r"--[^\n]*")
_RIGHTS = re.compile(r"\b(GRANT|REVOKE)\b[^;]*;", re.IGNORECASE)
_BODY = re.compile(r"\$function\$.*?\$function\$", re.DOTALL)
_TABLE = re.compile(r"\bCREATE TABLE (?:IF NOT EXISTS )?(\w+) \(.*?\n\)[^;]*;", re.DOTALL)
_REFUSED = {
    "takes something away": r"\b(DROP|TRUNCATE|DELETE\s+FROM)\b",
    "renames": r"\bRENAME\b",
    "changes a type": r"\bALTER\s+(COLUMN\s+)?\w+\s+(SET\s+DATA\s+)?TYPE\b",
    "binds what is written": r"\bSET\s+NOT\s+NULL\b|\bADD\s+(CONSTRAINT|PRIMARY|UNIQUE|CHECK)\b",
    "needs a value that nobody writes": (
        r"\bADD\s+(COLUMN\s+)?(?:(?!\bDEFAULT\b|\bGENERATED\b|,\s*ADD\b)[^;])*?\bNOT\s+NULL\b"
        r"(?!\s*(DEFAULT|GENERATED))"
    ),
}


def troubles(sql: str) -> list[str]:
    """Why code that knows nothing of this file could not go on beside it."""
    left = _RIGHTS.sub("", _COMMENT.sub("", _BODY.sub("", sql)))
    left = _TABLE.sub("", left)  # nobody can have written to a table that is new
    return [trouble for trouble, found in _REFUSED.items() if re.search(found, left, re.IGNORECASE)]


def test_there_are_migrations_to_look_at() -> None:
    assert len(BEFORE) >= 6
    assert NEW


@pytest.mark.parametrize("name", BEFORE)
def test_a_released_migration_is_as_it_was(name: str) -> None:
    assert TODAY[name].read_text() == BEFORE[name]


@pytest.mark.parametrize("name", [name for name, path in NEW.items() if not is_after(path)])
def test_a_new_migration_takes_nothing_away(name: str) -> None:
    assert troubles(Path(ROOT / name).read_text()) == []


@pytest.mark.parametrize(
    ("sql", "trouble"),
    [
        ("ALTER TABLE a DROP COLUMN b;", "takes something away"),
        ("ALTER TABLE a DROP CONSTRAINT a_pkey;", "takes something away"),
        ("DROP TABLE a;", "takes something away"),
        ("ALTER TABLE a RENAME COLUMN b TO c;", "renames"),
        ("ALTER TABLE a ALTER COLUMN b TYPE bigint;", "changes a type"),
        ("ALTER TABLE a ALTER b SET NOT NULL;", "binds what is written"),
        ("ALTER TABLE a ADD CONSTRAINT positive CHECK (b > 0);", "binds what is written"),
        ("ALTER TABLE a ADD COLUMN b int NOT NULL;", "needs a value that nobody writes"),
        (
            "ALTER TABLE a ADD COLUMN c int NOT NULL DEFAULT 1, ADD COLUMN b int NOT NULL;",
            "needs a value that nobody writes",
        ),
    ],
)
def test_what_the_release_before_cannot_live_with_is_found(sql: str, trouble: str) -> None:
    assert troubles(sql) == [trouble]


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE a (\n    b int NOT NULL\n);\nCREATE INDEX ON a (b);",
        "ALTER TABLE a ADD COLUMN b int NOT NULL DEFAULT 1, ADD COLUMN c text; -- DROP nothing",
        "ALTER TABLE a ADD COLUMN b int NOT NULL GENERATED ALWAYS AS (c + 1) STORED;",
        "REVOKE UPDATE, DELETE, TRUNCATE ON a FROM :app;",
    ],
)
def test_what_only_adds_is_fine(sql: str) -> None:
    assert troubles(sql) == []
