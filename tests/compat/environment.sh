#!/usr/bin/env bash
# environment.sh: makes the Python environment of tests/compat and tests/golden, once, and prints the path of its python.
#
# It lives in the cache of third_party/fetch.sh, outside the checkout, named by a hash of what it is made of. The torch
# wheel that a build has downloaded is used again. Needs Python 3.11 (as Debian 12 has), the only
# one for which torch is pinned.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
cache=${GEMMA_SFT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gemma-sft}
torch_requirements=$root/third_party/requirements-cpu.txt
say() { printf '%s\n' "environment.sh: $*" >&2; }

version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$version" != 3.11 ]; then
  say "python3 is $version; the pinned torch wheel needs Python 3.11"
  exit 1
fi
key=$(cat "$here/requirements.txt" "$torch_requirements" "$here/cuda_stand_ins.sh" "$0" | sha256sum | cut -c1-16)
environment=$cache/python-$key
if [ -e "$environment/complete" ]; then
  printf '%s\n' "$environment/bin/python"
  exit 0
fi

mkdir -p "$cache"
exec 9>"$cache/python.lock"
flock 9  # two at once would build the same folder
if [ ! -e "$environment/complete" ]; then
  rm -rf "$environment"
  say "making $environment"
  if ! python3 -m venv "$environment" >&2; then
    say "python3 has no venv module that works; install it: apt-get install python3-venv"
    exit 1
  fi
  links=()
  while read -r hash; do
    if [ -d "$cache/downloads/$hash" ]; then links+=(--find-links "$cache/downloads/$hash"); fi
  done < <(sed -nE 's/.*--hash=sha256:([0-9a-f]{64}).*/\1/p' "$torch_requirements")
  pip=("$environment/bin/python" -m pip install --quiet --no-deps --disable-pip-version-check)
  "${pip[@]}" ${links[@]+"${links[@]}"} --require-hashes --requirement "$torch_requirements" >&2
  "${pip[@]}" --requirement "$here/requirements.txt" >&2
  "$here/cuda_stand_ins.sh" "$environment/lib/python$version/site-packages" >&2
  "$environment/bin/python" -c 'import torch, transformers, peft, gguf; from trl import SFTTrainer' >&2
  touch "$environment/complete"
fi
printf '%s\n' "$environment/bin/python"
