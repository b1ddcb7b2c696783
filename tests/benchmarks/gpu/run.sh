#!/usr/bin/env bash
# Training speed and memory on a GPU, gemma-sft beside the Hugging Face stack, in one command. README.md has the rules.
# usage: run.sh [--bin DIR] [--libtorch DIR] [--python PYTHON] [--wheels DIR] [option of compare.py]...
#   --bin DIR        the programs of a build with CUDA and benchmarks, or of tests/gpu/pack.sh (default: build/cuda/bin, or with
#                    --device cpu build/release/bin)
#   --libtorch DIR   a LibTorch 2.11.0 for CUDA 13 for these programs, where the build's own is not on this machine:
#                    SITE_PACKAGES/torch of a Python that has it
#   --python PYTHON  a Python with torch for the other side (default: python3, or with --device cpu that of tests/compat)
#   --wheels DIR     what fetch_wheels.sh brought for that Python, which is used from a temporary folder, without a network
# `run.sh --device cpu --tiny` goes through all of it with a model of toy size, to see that it works; it measures nothing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
bin='' libtorch='' python='' wheels='' libraries='' device=cuda options=()
fail() { echo "run.sh: $*" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in
    --bin) bin=${2:?--bin needs a folder}; shift 2 ;;
    --libtorch) libtorch=$(cd "${2:?--libtorch needs a folder}" && pwd) || fail "$2 is no folder"; shift 2 ;;
    --python) python=${2:?--python needs a program}; shift 2 ;;
    --wheels) wheels=${2:?--wheels needs a folder}; shift 2 ;;
    --device) device=${2:?--device needs cpu or cuda}; options+=(--device "$device"); shift 2 ;;
    -h | --help) sed -n 2,10p "$0"; python3 "$here/compare.py" --help; exit 0 ;;
    *) options+=("$1"); shift ;;
  esac
done
if [ -z "$bin" ]; then
  if [ "$device" = cpu ]; then bin=$root/build/release/bin; else bin=$root/build/cuda/bin; fi
fi
for program in gemma-sft gemma-sft-engine training_flops_of; do
  [ -x "$bin/$program" ] || fail "$bin/$program does not exist; build it, or say --bin"
done
# For our programs only: compare.py gives them to nothing else.
if [ -d "$bin/../lib" ]; then libraries=$(cd "$bin/../lib" && pwd); fi
if [ -n "$libtorch" ]; then libraries=${libraries:+$libraries:}$libtorch/lib:$libtorch/../nvidia/cu13/lib; fi
searched=$libraries${LD_LIBRARY_PATH:+${libraries:+:}$LD_LIBRARY_PATH}
missing=$(LD_LIBRARY_PATH=$searched ldd "$bin/gemma-sft-engine" 2>&1 | grep 'not found' || true)
[ -z "$missing" ] || fail "$bin/gemma-sft-engine cannot start here; --libtorch says where LibTorch is:"$'\n'"$missing"
if [ -z "$python" ]; then
  if [ "$device" = cpu ] && [ -z "$wheels" ]; then python=$("$root/tests/compat/environment.sh"); else python=python3; fi
fi
if [ -n "$wheels" ]; then
  packages=$(mktemp -d)
  trap 'rm -rf "$packages"' EXIT
  "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --target "$packages" "$wheels"/*.whl >&2
  export PYTHONPATH=$packages${PYTHONPATH:+:$PYTHONPATH}
fi
"$python" - <<'END_OF_PROGRAM' || exit 2
import importlib.util
import sys

missing = [name for name in ("torch", "transformers", "trl", "peft", "datasets") if importlib.util.find_spec(name) is None]
if missing:
    sys.exit("run.sh: %s has no %s: say --python or --wheels" % (sys.executable, ", ".join(missing)))
END_OF_PROGRAM
commit=$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)
"$python" "$here/compare.py" --bin "$bin" --commit "$commit" --libraries "$libraries" ${options[@]+"${options[@]}"}
