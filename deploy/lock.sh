#!/bin/sh
# Writes deploy/lock/*.txt anew from pyproject.toml under deploy/constraints.txt. Needs .venv with pip-tools.
set -eu
cd "$(dirname "$0")/.."
compile() {
    target="$1"
    shift
    CUSTOM_COMPILE_COMMAND="make lock" .venv/bin/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe \
        --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
        --constraint deploy/constraints.txt --unsafe-package torch --output-file "deploy/lock/$target.txt" \
        "$@" pyproject.toml deploy/build.in
    # torch is installed beside the lock, from PyTorch's own index: see setup.sh.
    .venv/bin/python - "deploy/lock/$target.txt" <<'PYTHON'
import pathlib, re, sys
path = pathlib.Path(sys.argv[1])
path.write_text(re.sub(r"^torch==.*\n(?:[ #].*\n)*", "", path.read_text(), flags=re.M))
PYTHON
}
compile head
compile gpu --extra gpu
compile dev --extra gpu --extra dev
