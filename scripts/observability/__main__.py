"""Write the alert rules and the dashboards, or (--check) say which of them are stale.

python -m scripts.observability [--check]
"""

import argparse
import sys
from pathlib import Path

import yaml

from scripts.observability import alerts, federation_boards, objectives, platform_boards
from scripts.observability.grafana import to_json
from scripts.observability.rules import group

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "observability"
RULES = "alerts.yaml"
_HEAD = (
    "# Made from scripts/observability by `make generate`. What each alert means and what to do:\n"
    "# docs/runbooks.md. `promtool test rules alerts_test.yaml` shows each of them firing.\n"
)


def files() -> dict[Path, str]:
    """What has to lie where."""
    groups = [
        group("federations", alerts.FEDERATIONS),
        group("privacy", alerts.PRIVACY),
        group("backbone", alerts.BACKBONE),
        group("certificates", alerts.CERTIFICATES),
        group("objectives", objectives.RULES),
    ]
    rules = yaml.safe_dump({"groups": groups}, sort_keys=False, width=96, allow_unicode=True)
    boards = (*federation_boards.BOARDS, *platform_boards.BOARDS)
    dashboards = FOLDER / "grafana" / "dashboards"
    return {FOLDER / RULES: _HEAD + rules} | {
        dashboards / f"flowerbed-{board.name}.json": to_json(board) for board in boards
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.observability")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if one is stale")
    check: bool = parser.parse_args().check
    wanted = files()
    found = {FOLDER / RULES, *(FOLDER / "grafana" / "dashboards").glob("*.json")}
    stale = [
        path for path, content in wanted.items() if not path.exists() or path.read_text() != content
    ]
    stale += sorted(found - wanted.keys())
    for path in stale:
        print(f"{'stale' if check else 'written'}: {path.relative_to(FOLDER.parents[1])}")
        if check:
            continue
        if path in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
        else:
            path.unlink()
    if check and stale:
        print("run `make generate`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
