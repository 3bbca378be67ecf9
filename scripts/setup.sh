#!/usr/bin/env bash
# Make .venv what requirements.lock and the projects say. Does nothing when it already is.
set -euo pipefail
cd "$(dirname "$0")/.."
projects=(contracts events deploy/embedded services/*)
stamp=.venv/.installed
wanted=$(cat requirements.lock scripts/setup.sh "${projects[@]/%//pyproject.toml}" | sha256sum | cut -d' ' -f1)" $PWD"
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

for candidate in "${PYTHON:-python3}" python3.11 python3.12 python3.13; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "${python:-}" ]; then
  echo "setup: Python 3.11 or newer is needed; set PYTHON to one" >&2
  exit 1
fi
rm -f "$stamp"
if [ ! -x .venv/bin/pip ]; then
  echo "setup: making .venv with $("$python" --version)"
  "$python" -m venv .venv || { echo "setup: the venv module is missing (Debian: python3-venv)" >&2; exit 1; }
fi
pip=(.venv/bin/pip --disable-pip-version-check --quiet)
locked=$(mktemp)
trap 'rm -f "$locked"' EXIT
grep -v '^torch==' requirements.lock > "$locked"
echo "setup: installing the locked dependencies (a minute or two, once)"
"${pip[@]}" install --no-deps --require-hashes -r "$locked"
"${pip[@]}" install --no-warn-conflicts "$(grep '^torch==' requirements.lock)"
echo "setup: installing Flowerbed's own projects"
"${pip[@]}" install --no-deps --no-build-isolation "${projects[@]/#/-e./}"
printf '%s' "$wanted" > "$stamp"
