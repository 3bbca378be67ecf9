"""Which apps are installed here, and whether their code is what this release knows it to be."""

from flowerbed.contracts.spec import builtin_apps
from flowerbed.flower_apps import registry


def changed_apps() -> list[str]:
    """Apps whose files are not those of this release: work for them is refused (`code-hash`)."""
    expected = builtin_apps()
    return [name for name in sorted(expected) if _hash(name) != expected[name]]


def _hash(name: str) -> str:
    try:
        return registry.code_hash(name)
    except (KeyError, OSError):
        return ""
