#!/usr/bin/env bash
# Everything that only a GPU can tell, in one command that needs no network and ends in time:
#
#     benchmarks/gpu_check.sh [--small] [--deadline SECONDS] [--only PARTS] [FOLDER]
#
# Tables (Markdown) and numbers (JSON) lie in FOLDER afterwards, output/gpu_check by default.
# --small does the same in miniature on a CPU. Exit code: 1 if a check failed or was cut off.
#
# Python packages that the machine lacks may lie as wheels in .whl/, which git ignores. To fill it
# for Python 3.12 on x86-64, on a machine with a network:
#
#     for p in open_clip_torch==3.3.0 ftfy wcwidth yacs platformdirs rich; do
#         python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 \
#             --implementation cp --platform manylinux_2_28_x86_64 \
#             --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
#             --platform manylinux1_x86_64 -d .whl "$p"
#     done
#
# PYTHON names another interpreter, SITE another folder for what the wheels hold.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python3}
if [ -d .whl ] && [ "${USE_WHEELS:-1}" = 1 ]; then
    SITE=${SITE:-$(mktemp -d)}
    "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
        --target "$SITE" .whl/*.whl
    export PYTHONPATH="$SITE${PYTHONPATH:+:$PYTHONPATH}"
fi
export PYTHONUNBUFFERED=1
exec "$PYTHON" -m benchmarks.gpu_check "$@"
