#!/usr/bin/env bash
# run.sh BIN_DIR [PYTEST_OPTION]...: the runner's tests, with the real google-tunix on this machine's CPU, against the programs
# of BIN_DIR. Makes the Python environment on the first call; what XLA compiled is kept beside it for the next one.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
GEMMA_SFT_BIN=$(cd "$1" && pwd)
shift
python=$("$here/../../../../trainer/tunix/gateway/runner/environment.sh" --test)
cache=$(dirname "$(dirname "$(dirname "$python")")")
export GEMMA_SFT_BIN JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$cache/jax-tests} PYTHONDONTWRITEBYTECODE=1
cd "$here"
exec "$python" -m pytest -q -rs --durations 5 --numprocesses "$(nproc)" --dist loadfile "$@"
