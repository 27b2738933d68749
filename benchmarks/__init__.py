"""How long the KPIs take, at any size and on each engine: `python -m benchmarks --help`."""
