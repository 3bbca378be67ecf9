#!/usr/bin/env bash
# The suite with line coverage of the product, in its processes too; fails below the floors.
set -euo pipefail
cd "$(dirname "$0")/.."
export COVERAGE_FILE=$PWD/.coverage
rm -f .coverage .coverage.*
.venv/bin/python -m coverage run -m pytest -q "$@"
.venv/bin/python -m coverage combine -q
.venv/bin/python scripts/coverage_floors.py
