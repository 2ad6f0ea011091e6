#!/bin/sh
# The test suite. `sh deploy/test.sh` runs all of it but the slow tests in network namespaces; `--network` runs those, where a skip is a
# failure; paths or pytest's options narrow it.
set -eu
cd "$(dirname "$0")/.."
sh deploy/setup.sh dev

# Chromium for the browser tests, iproute2 for the namespaces, systemd for the service: a root shell installs them, others skip those tests loudly.
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    missing=""
    command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
    command -v ip >/dev/null 2>&1 || missing="$missing iproute2"
    command -v systemd-nspawn >/dev/null 2>&1 || missing="$missing systemd systemd-container"
    if [ -n "$missing" ]; then
        echo "Installing$missing for the tests ..." >&2
        # shellcheck disable=SC2086
        { apt-get install -y -qq $missing || { apt-get update -qq && apt-get install -y -qq $missing; }; } >/dev/null 2>&1 ||
            echo "Could not install$missing: the tests that need it will say so." >&2
    fi
fi

# Hundreds of processes start in these tests; where bytecode may not be written, each would compile the farm for itself.
unset PYTHONDONTWRITEBYTECODE

# In three processes, file by file but some folders whole (tests/conftest.py). Much of it is waiting for leases and silences, so three
# keep two cores busy; four are no quicker.
side_by_side="-n 3 --dist loadfile --no-loadscope-reorder"
if [ "${1:-}" = "--network" ]; then
    shift
    # shellcheck disable=SC2086
    FARM_REQUIRE_NETWORK_TESTS=1 exec .venv/bin/python -m pytest tests/network $side_by_side "$@"
fi
if [ "$#" = 0 ]; then
    # shellcheck disable=SC2086
    exec .venv/bin/python -m pytest tests --ignore tests/network $side_by_side
fi
exec .venv/bin/python -m pytest "$@"
