#!/usr/bin/env bash
# run.sh BIN_DIR [PYTEST_OPTION]...: the gateway's tests with a fake runner, and gemma-sft of BIN_DIR against it. Makes the
# light Python environment on the first call. KILLS=N: how often the random test kills the gateway (8).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
GEMMA_SFT_BIN=$(cd "$1" && pwd)
shift
if ! command -v python3.11 >/dev/null && ! python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
  echo "skipped: the gateway's packages are pinned for Python 3.11, which is not here"
  exit 77
fi
python=$("$here/../../../../trainer/tunix/gateway/environment.sh" --test)
# Byte code beside the environment, not in the sources: the gateway is started some fifty times.
export GEMMA_SFT_BIN PYTHONPYCACHEPREFIX=${python%/bin/python}/pycache
cd "$here"
exec "$python" -m pytest "$@"
