#!/usr/bin/env bash
# environment.sh [--test]: makes the gateway's Python environment, once, and prints the path of its python. --test: with what
# the tests need. It lives outside the checkout, named by a hash of what it is made of.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${GEMMA_SFT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gemma-sft}
say() { printf '%s\n' "gateway: $*" >&2; }

requirements=("$here/requirements.txt") size="4 MB"
if [ "${1:-}" = --test ]; then
  requirements+=("$here/requirements-test.txt") size="34 MB"
fi
python=$(command -v python3.11 || command -v python3 || true)
[ -n "$python" ] || { say "there is no python3; install it: apt-get install python3 python3-venv"; exit 1; }
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$version" != 3.11 ]; then
  say "$python is Python $version; the pinned packages are those of Python 3.11 (Debian 12 has it)"
  exit 1
fi
key=$({ cat "${requirements[@]}" "${BASH_SOURCE[0]}"; echo "$version"; } | sha256sum | cut -c1-16)
environment=$cache/venv-gateway-$key
if [ ! -e "$environment/complete" ]; then
  mkdir -p "$cache"
  exec 9>"$cache/venv-gateway.lock"
  flock 9  # two at once would build the same folder
  if [ ! -e "$environment/complete" ]; then
    rm -rf "$environment"
    say "making $environment (downloads: $size)"
    if ! "$python" -m venv "$environment" >&2; then
      say "$python has no venv module that works; install it: apt-get install python3-venv"
      exit 1
    fi
    options=()
    for file in "${requirements[@]}"; do options+=(--requirement "$file"); done
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
      --require-hashes "${options[@]}" >&2
    "$environment/bin/python" -c 'import fastapi, uvicorn'
    touch "$environment/complete"
  fi
fi
printf '%s\n' "$environment/bin/python"
