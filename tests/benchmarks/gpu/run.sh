#!/usr/bin/env bash
# Training speed and memory on a GPU, gemma-sft beside the Hugging Face stack, in one command. README.md has the rules.
# usage: run.sh [--bin DIR] [--wheels DIR] [option of compare.py]...
#   --bin DIR     the programs of a build with CUDA and benchmarks (default: build/cuda/bin, or with --device cpu
#                 build/release/bin)
#   --wheels DIR  what fetch_wheels.sh brought: the Python side is installed from there, without a network
# `run.sh --device cpu --tiny` goes through all of it with a model of toy size, to see that it works; it measures nothing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
bin='' wheels='' device=cuda options=()
while [ $# -gt 0 ]; do
  case $1 in
    --bin) bin=${2:?--bin needs a folder}; shift 2 ;;
    --wheels) wheels=${2:?--wheels needs a folder}; shift 2 ;;
    --device) device=${2:?--device needs cpu or cuda}; options+=(--device "$device"); shift 2 ;;
    -h | --help) sed -n 2,7p "$0"; python3 "$here/compare.py" --help; exit 0 ;;
    *) options+=("$1"); shift ;;
  esac
done
if [ -z "$bin" ]; then
  if [ "$device" = cpu ]; then bin=$root/build/release/bin; else bin=$root/build/cuda/bin; fi
fi
for program in gemma-sft gemma-sft-engine training_flops_of; do
  [ -x "$bin/$program" ] || { echo "run.sh: $bin/$program does not exist; build it, or say --bin" >&2; exit 2; }
done
if [ -n "$wheels" ]; then
  environment=$(mktemp -d)
  trap 'rm -rf "$environment"' EXIT
  python3 -m venv "$environment"
  "$environment/bin/python" -m pip install --quiet --no-index --no-deps --find-links "$wheels" "$wheels"/*.whl >&2
  python=$environment/bin/python
elif [ "$device" = cpu ]; then
  python=$("$root/tests/compat/environment.sh")
else
  python=python3
fi
commit=$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)
"$python" "$here/compare.py" --bin "$bin" --commit "$commit" ${options[@]+"${options[@]}"}
