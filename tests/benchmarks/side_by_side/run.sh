#!/usr/bin/env bash
# run.sh BIN_DIR [OPTION...]: gemma-sft and the Hugging Face stack, side by side on this machine's CPU: the same weights, the
# same tokens, the same shape, steps taken in turns. Prints a table; --output FILE keeps it with everything behind it as JSON.
#
# BIN_DIR holds gemma-sft (build/release/bin). Options: run.sh BIN_DIR --help; without any, all rows of all cells: 2 vocabularies
# x 3 precisions, about an hour on two cores. Nothing else should run meanwhile.
#
# Python lives in the environment of tests/compat (pinned, made on the first call, in the cache outside the checkout), and
# so do compiled graphs and models made here. torch.compile needs g++ and Python's headers.
set -euo pipefail
if [ $# -lt 1 ] || [ "${1#-}" != "$1" ]; then
  sed -n 2,9p "$0" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
bin=$(cd "$1" && pwd)
shift
python=$("$here/../../compat/environment.sh")
cache=${GEMMA_SFT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gemma-sft}
mkdir -p "$cache/side_by_side"
exec "$python" "$here/side_by_side.py" --bin "$bin" --work "$cache/side_by_side" "$@"
