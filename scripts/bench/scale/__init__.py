"""How the control plane grows with its runners: see `python -m scripts.bench.scale --help`."""
