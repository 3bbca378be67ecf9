#!/usr/bin/env bash
# The suite, with line coverage of what runs in the tests' own processes; fails below the floors.
# Four lanes at once, because most of the time a test waits for a server: end to end on the one
# stack that most of those tests share; what starts stacks of its own; the services but for the
# gateway; everything else. Flower's SuperNodes and Ray start processes without end: they come
# behind the lane that ends first.
# With arguments, one lane and no coverage: scripts/test.sh tests/unit -k fold
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -eq 0 ] || exec .venv/bin/python -m pytest "$@"

export COVERAGE_FILE=$PWD/.coverage
rm -f .coverage .coverage.*
lane() { .venv/bin/python -m coverage run -m pytest -q -p no:cacheprovider --durations=5 "$@"; }
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
own=(tests/e2e/test_replicas.py tests/e2e/test_chaos.py tests/e2e/test_upgrade.py
  tests/e2e/test_backup.py tests/integration/embedded)
transports=(tests/e2e/test_superlink.py tests/e2e/test_transports.py)
shared=(tests/e2e)
services=(tests/integration/{aggregator,artifact,events,lease,orchestrator,runner})
failed=0
lane "${shared[@]}" "${own[@]/#/--ignore=}" "${transports[@]/#/--ignore=}" > "$logs/shared" 2>&1 &
first=$!
{
  ended=0
  lane "${own[@]}" > "$logs/own" 2>&1 || ended=1
  lane "${transports[@]}" > "$logs/transports" 2>&1 || ended=1
  exit "$ended"
} &
second=$!
lane "${services[@]}" > "$logs/services" 2>&1 &
third=$!
lane tests "${shared[@]/#/--ignore=}" "${own[@]/#/--ignore=}" "${services[@]/#/--ignore=}" || failed=1
wait "$first" || failed=1
wait "$second" || failed=1
wait "$third" || failed=1
cat "$logs/shared" "$logs/own" "$logs/services" "$logs/transports"
.venv/bin/python -m coverage combine -q
.venv/bin/python scripts/coverage_floors.py || failed=1
exit "$failed"
