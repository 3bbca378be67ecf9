#!/usr/bin/env bash
# The suite, with line coverage of what runs in the tests' own processes; fails below the floors.
# Two lanes at once, because most of the time a test waits for a server: end to end, and the rest.
# With arguments, one lane and no coverage: scripts/test.sh tests/unit -k fold
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -eq 0 ] || exec .venv/bin/python -m pytest "$@"

export COVERAGE_FILE=$PWD/.coverage
rm -f .coverage .coverage.*
lane() { .venv/bin/python -m coverage run -m pytest -q -p no:cacheprovider "$@"; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
lane tests/e2e tests/integration/embedded > "$log" 2>&1 &
whole_stack=$!
failed=0
lane tests --ignore tests/e2e --ignore tests/integration/embedded || failed=1
wait "$whole_stack" || failed=1
cat "$log"
.venv/bin/python -m coverage combine -q
.venv/bin/python scripts/coverage_floors.py || failed=1
exit "$failed"
