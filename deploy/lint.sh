#!/bin/sh
# ruff, mypy --strict, import-linter, over everything.
set -eu
cd "$(dirname "$0")/.."
sh deploy/setup.sh dev
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/lint-imports
