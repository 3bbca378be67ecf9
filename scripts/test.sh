#!/usr/bin/env bash
# The suite, with line coverage of what runs in the tests' own processes; fails below the floors.
# Two lanes at once, because most of the time a test waits for a server. End to end comes last in
# its lane: the stack it starts would idle beside the others.
# With arguments, one lane and no coverage: scripts/test.sh tests/unit -k fold
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -eq 0 ] || exec .venv/bin/python -m pytest "$@"

export COVERAGE_FILE=$PWD/.coverage
rm -f .coverage .coverage.*
lane() { .venv/bin/python -m coverage run -m pytest -q -p no:cacheprovider --durations=5 "$@"; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
mine=(tests/integration/embedded tests/integration/runner tests/unit tests/e2e)
lane "${mine[@]}" > "$log" 2>&1 &
other=$!
failed=0
lane tests "${mine[@]/#/--ignore=}" || failed=1
wait "$other" || failed=1
cat "$log"
.venv/bin/python -m coverage combine -q
.venv/bin/python scripts/coverage_floors.py || failed=1
exit "$failed"
