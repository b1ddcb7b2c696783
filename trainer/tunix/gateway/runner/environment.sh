#!/usr/bin/env bash
# environment.sh [--test] [--tpu | --gpu] [--plan]: makes the runner's Python environment, once, and prints the path of its
# python. --test: with what the tests need; --tpu, --gpu: with what jax needs there; --plan: only says what would be
# downloaded. It lives outside the checkout, named by a hash of what it is made of.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${GEMMA_SFT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gemma-sft}
say() { printf '%s\n' "runner: $*" >&2; }

requirements=("$here/requirements.txt") plan=no
for word in "$@"; do
  case $word in
    --test | --tpu | --gpu) requirements+=("$here/requirements-${word#--}.txt") ;;
    --plan) plan=yes ;;
    *) sed -n '2,4p' "$0" >&2; exit 64 ;;
  esac
done
python=$(command -v python3.11 || command -v python3 || true)
[ -n "$python" ] || { say "there is no python3; install it: apt-get install python3 python3-venv"; exit 1; }
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$version" != 3.11 ]; then
  say "$python is Python $version; the pinned packages are those of Python 3.11 (Debian 12 has it)"
  exit 1
fi
key=$({ cat "${requirements[@]}" "${BASH_SOURCE[0]}"; echo "$version"; } | sha256sum | cut -c1-16)
environment=$cache/venv-tunix-$key
if [ ! -e "$environment/complete" ]; then
  size=$(sed -nE 's/.*# ([0-9]+) bytes$/\1/p' "${requirements[@]}" | awk '{ n += $1 } END { printf "%.0f MB", n / 1e6 }')
  say "to download with pip: $size; unpacked about five times that, in $environment"
  [ "$plan" = no ] || exit 0
  mkdir -p "$cache"
  exec 9>"$cache/venv-tunix.lock"
  flock 9  # two at once would build the same folder
  if [ ! -e "$environment/complete" ]; then
    rm -rf "$environment"
    if ! "$python" -m venv "$environment" >&2; then
      say "$python has no venv module that works; install it: apt-get install python3-venv"
      exit 1
    fi
    options=()
    for file in "${requirements[@]}"; do options+=(--requirement "$file"); done
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
      --require-hashes "${options[@]}" >&2
    "$environment/bin/python" -c 'import jax, qwix; from tunix.sft import peft_trainer' >&2
    touch "$environment/complete"
  fi
fi
[ "$plan" = yes ] || printf '%s\n' "$environment/bin/python"
