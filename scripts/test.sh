#!/usr/bin/env bash
# The suite, with line coverage of what runs in the tests' own processes; fails below the floors.
# Three lanes at once, because most of the time a test waits for a server: end to end on the one
# stack that most of those tests share, then what is in no other part; what starts stacks of its
# own, then the transports, whose SuperNodes and Ray start processes without end; the services,
# then what needs none.
# With arguments, one lane and no coverage: scripts/test.sh tests/unit -k fold
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -eq 0 ] || exec .venv/bin/python -m pytest "$@"

export COVERAGE_FILE=$PWD/.coverage
rm -f .coverage .coverage.*
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
own=(tests/e2e/test_replicas.py tests/e2e/test_chaos.py tests/e2e/test_upgrade.py
  tests/e2e/test_backup.py tests/integration/embedded)
transports=(tests/e2e/test_superlink.py tests/e2e/test_transports.py)
services=(tests/integration/{aggregator,artifact,events,lease,orchestrator,runner})
units=(tests/unit tests/property tests/architecture)

part() { # NAME, then pytest's arguments; only a part that ran to its end and passed says so
  echo "$1: begins"
  .venv/bin/python -m coverage run -m pytest -q -p no:cacheprovider --durations=5 "${@:2}" \
    > "$logs/$1" 2>&1 && touch "$logs/$1.passed"
  cat "$logs/$1"
}
{
  part shared tests/e2e "${own[@]/#/--ignore=}" "${transports[@]/#/--ignore=}"
  part rest tests --ignore=tests/e2e "${own[@]/#/--ignore=}" "${services[@]/#/--ignore=}" \
    "${units[@]/#/--ignore=}"
} &
{
  part own "${own[@]}"
  part transports "${transports[@]}"
} &
part services "${services[@]}"
part units "${units[@]}"
wait

.venv/bin/python -m coverage combine -q
.venv/bin/python scripts/coverage_floors.py && touch "$logs/coverage.passed"
failed=0
for one in shared rest own transports services units coverage; do
  [ -e "$logs/$one.passed" ] || { echo "failed: $one"; failed=1; }
done
exit "$failed"
