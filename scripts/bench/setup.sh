#!/usr/bin/env bash
# Put what the benchmarks need beside .venv into .bench-packages. Does nothing when it is there.
set -euo pipefail
cd "$(dirname "$0")/../.."
stamp=.bench-packages/.installed
wanted=$(sha256sum requirements-bench.lock | cut -d' ' -f1)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0
rm -rf .bench-packages
echo "bench: installing what Flowerbed is compared with (a minute, once)"
.venv/bin/pip --disable-pip-version-check --quiet install --no-deps --require-hashes \
  --target .bench-packages -r requirements-bench.lock
printf '%s' "$wanted" > "$stamp"
