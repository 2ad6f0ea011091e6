#!/bin/sh
# The CPU benchmarks; their figures go into docs/benchmarks.md. About two minutes.
set -eu
cd "$(dirname "$0")/.."
sh deploy/setup.sh dev
exec .venv/bin/python -m benchmarks.run "$@"
