#!/bin/sh
# A farm on this PC renders one sample picture and keeps serving until Ctrl-C. ONCE=1 stops after the video.
set -eu
cd "$(dirname "$0")/.."
if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then
    sh deploy/setup.sh gpu
else
    sh deploy/setup.sh head
fi
if [ -n "${ONCE:-}" ]; then
    exec .venv/bin/farm demo --once
fi
exec .venv/bin/farm demo
