# Everything installs itself into .venv. `make demo` needs no torch; `make test` installs its CPU build.
# Without make: `sh deploy/demo.sh` and `sh deploy/test.sh` do the same.

SHELL := /bin/sh
.DEFAULT_GOAL := help

.PHONY: help demo test lint bench docs test-unit test-network format lock clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' Makefile | column -t -s '|'

demo: ## a farm on this PC renders one sample picture and keeps serving (ONCE=1 stops after the video)
	@sh deploy/demo.sh

test: ## the test suite: real Ray, real ffmpeg, real Chromium
	@sh deploy/test.sh

test-unit: ## the tests that start no farm and no browser
	@sh deploy/test.sh tests/unit tests/property tests/diffusion

test-network: ## the slow tests in network namespaces (root): cut cables, killed PCs; a skip is a failure
	@sh deploy/test.sh --network

lint: ## ruff, mypy --strict, import-linter
	@sh deploy/lint.sh

bench: ## the CPU benchmarks, written to docs/benchmarks.md
	@sh deploy/bench.sh

docs: ## the pictures of the pages in docs/images, made by the browser test
	@FARM_WRITE_DOC_IMAGES=1 sh deploy/test.sh tests/browser

format: ## ruff format
	@sh deploy/setup.sh dev && .venv/bin/ruff format .

lock: ## writes the lock files anew from pyproject.toml
	@sh deploy/lock.sh

clean: ## removes the environment and caches, not your farm's data
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
