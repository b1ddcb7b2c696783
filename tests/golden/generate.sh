#!/usr/bin/env bash
# generate.sh [CASE...]: makes the golden cases again, in the Python environment of tests/compat (made on the first call).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=$("$here/../compat/environment.sh")
exec "$python" "$here/generate.py" "$@"
