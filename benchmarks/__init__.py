"""Speed of the farm itself, measured on real processes. `make bench` runs all and writes docs/benchmarks.md."""
