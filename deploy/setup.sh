#!/bin/sh
# Makes .venv and installs what is locked. Usage: sh deploy/setup.sh head|dev|gpu
#   head  the farm without torch: enough for a head and for a PC without a graphics card
#   dev   the above, the CPU build of torch, and the tools for tests and lint
#   gpu   the above of head, and torch for NVIDIA cards from Maxwell to Ada
# Does nothing when it was done before with the same locks.
set -eu
cd "$(dirname "$0")/.."
what="${1:-head}"
torch="$(sed -n 's/^torch==//p' deploy/constraints.txt)"
# PyTorch's own indexes: PyPI's Linux wheel of torch is a CUDA build of several GB.
cpu_index="https://download.pytorch.org/whl/cpu"
old_cards="cu126"

say() { printf '%s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

find_python() {
    for name in python3 python3.13 python3.12 python3.11; do
        if command -v "$name" >/dev/null 2>&1 &&
            "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'; then
            printf '%s\n' "$name"
            return
        fi
    done
    die "The farm needs Python 3.11, 3.12 or 3.13, and this PC has none of them." \
        "On Debian 12 or Ubuntu 24.04: sudo apt-get install python3 python3-venv"
}

# Debian ships Python without venv's pip; a root shell can mend that, others are told how.
need_venv() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "Installing python3-venv ..."
        { apt-get install -y -qq python3-venv || { apt-get update -qq && apt-get install -y -qq python3-venv; }; } \
            >/dev/null || die "Could not install python3-venv. Run: apt-get install python3-venv"
    else
        die "Python's venv module is missing. Run: sudo apt-get install python3-venv"
    fi
}

case "$what" in
    head) locks="deploy/lock/head.txt" ;;
    dev) locks="deploy/lock/dev.txt" ;;
    gpu) locks="deploy/lock/gpu.txt" ;;
    *) die "Usage: sh deploy/setup.sh head|dev|gpu" ;;
esac

stamp=".venv/.farm-$what-$(cat "$locks" deploy/constraints.txt pyproject.toml deploy/setup.sh | cksum | tr -d ' ')"
[ -e "$stamp" ] && exit 0

python="$(find_python)"
need_venv "$python"
[ -x .venv/bin/python ] || "$python" -m venv .venv
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
pip() { .venv/bin/python -m pip --quiet "$@"; }

say "Installing the farm ($what) into .venv ..."
pip install --require-hashes --no-deps -r "$locks"
case "$what" in
    # --no-deps: the lock has what torch needs; its own wish list would bring gigabytes of CUDA.
    dev) pip install --no-deps --extra-index-url "$cpu_index" "torch==$torch" ;;
    # With the build's name: `dev` may have been here before, and to pip its CPU build is this version too.
    gpu)
        pip install --index-url "https://download.pytorch.org/whl/$old_cards" --extra-index-url https://pypi.org/simple \
            "torch==$torch+$old_cards"
        ;;
esac
pip install --no-deps --no-build-isolation -e .
touch "$stamp"
