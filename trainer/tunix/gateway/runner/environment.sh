#!/usr/bin/env bash
# environment.sh [--test] [--tpu | --gpu] [--plan]: makes the runner's Python environment, once, and prints the path of its
# python. --tpu, --gpu: with what jax needs there; --test: a second, small one on top, with what the tests need; --plan: only
# says what would be downloaded. They live outside the checkout, named by a hash of what they are made of.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${GEMMA_SFT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gemma-sft}
say() { printf '%s\n' "runner: $*" >&2; }

requirements=("$here/requirements.txt") tests=no plan=no
for word in "$@"; do
  case $word in
    --tpu | --gpu) requirements+=("$here/requirements-${word#--}.txt") ;;
    --test) tests=yes ;;
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
hash_of() { { cat "$@" "${BASH_SOURCE[0]}"; echo "$version"; } | sha256sum | cut -c1-16; }
environment=$cache/venv-tunix-$(hash_of "${requirements[@]}")
on_top=$environment-test-$(hash_of "$here/requirements-test.txt")

missing=()
[ -e "$environment/complete" ] || missing+=("${requirements[@]}")
[ "$tests" = no ] || [ -e "$on_top/complete" ] || missing+=("$here/requirements-test.txt")
if [ ${#missing[@]} -gt 0 ]; then
  size=$(sed -nE 's/.*# ([0-9]+) bytes$/\1/p' "${missing[@]}" | awk '{ n += $1 } END { printf "%.1f MB", n / 1e6 }')
  say "to download with pip: $size; unpacked about five times that, below $cache"
fi
[ "$plan" = no ] || exit 0

install() {  # ENVIRONMENT REQUIREMENTS... [-- PIP_OPTION...]: with the pip of the first environment
  local into=$1 options=()
  shift
  while [ $# -gt 0 ] && [ "$1" != -- ]; do options+=(--requirement "$1"); shift; done
  [ $# -eq 0 ] || { shift; options+=("$@"); }
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --require-hashes "${options[@]}" >&2
  touch "$into/complete"
}
if [ ${#missing[@]} -gt 0 ]; then
  mkdir -p "$cache"
  exec 9>"$cache/venv-tunix.lock"
  flock 9  # two at once would build the same folder
  if [ ! -e "$environment/complete" ]; then
    rm -rf "$environment"
    if ! "$python" -m venv "$environment" >&2; then
      say "$python has no venv module that works; install it: apt-get install python3-venv"
      exit 1
    fi
    install "$environment" "${requirements[@]}"
  fi
  if [ "$tests" = yes ] && [ ! -e "$on_top/complete" ]; then
    rm -rf "$on_top"
    "$python" -m venv --without-pip "$on_top" >&2
    packages=lib/python$version/site-packages
    echo "$environment/$packages" >"$on_top/$packages/below.pth"
    install "$on_top" "$here/requirements-test.txt" -- --target "$on_top/$packages"
  fi
fi
if [ "$tests" = yes ]; then environment=$on_top; fi
printf '%s\n' "$environment/bin/python"
