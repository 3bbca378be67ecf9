"""The checker's table, as text."""

from collections.abc import Sequence

from scripts.faults.checker import Column

SHOWN = 20


def show(columns: Sequence[Column]) -> None:
    """The table, and below it what was found."""
    print()
    for column in columns:
        print(f"{column.name:<24} {len(column.findings):>6}")
    for column in columns:
        for finding in column.findings[:SHOWN]:
            print(f"{column.name}: {finding}")


def is_clean(columns: Sequence[Column]) -> bool:
    """There was a check, and it found nothing."""
    return bool(columns) and not any(column.findings for column in columns)
