#!/usr/bin/env bash
# fetch_wheels.sh [--python-version V] [--torch] DIR: downloads the wheels of the Python side into DIR, on a machine with a network,
# for run.sh --wheels DIR on one without.
#   --python-version  of the Python there, such as 3.12 (default: this machine's)
#   --torch           torch 2.11.0, its CUDA libraries and triton too (3.5 GB), where the Python there has none of its own
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../../..
version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
torch=no
while [ $# -gt 0 ]; do
  case $1 in
    --python-version) version=${2:?--python-version needs one, such as 3.12}; shift 2 ;;
    --torch) torch=yes; shift ;;
    -h | --help) sed -n 2,5p "$0"; exit 0 ;;
    -*) echo "fetch_wheels.sh: unknown option $1" >&2; exit 2 ;;
    *) break ;;
  esac
done
[ $# -eq 1 ] || { sed -n 2,5p "$0" >&2; exit 2; }
mkdir -p "$1"
lists=$(mktemp -d)
trap 'rm -rf "$lists"' EXIT
fetch() {
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version "$version" -d "$1" -r "$2"
}
# triton is a part of torch's own installation: another version of it beside that torch would break torch.compile.
grep -v '^triton' "$here/requirements.txt" >"$lists/others.txt"
fetch "$1" "$root/tests/compat/requirements.txt"
fetch "$1" "$lists/others.txt"
if [ "$torch" = yes ]; then
  grep '^triton' "$here/requirements.txt" >"$lists/torch.txt"
  cat "$root/third_party/requirements-cpu.txt" "$root/third_party/requirements-cuda.txt" >"$lists/pinned.txt"
  if [ "$version" = 3.11 ]; then
    fetch "$1" "$lists/pinned.txt"
  else  # torch is pinned by its wheel for 3.11; other Pythons get the same version, without a hash
    sed -E 's/ +--hash=[^ ]+//' "$lists/pinned.txt" >>"$lists/torch.txt"
  fi
  fetch "$1" "$lists/torch.txt"
fi
du -sh "$1"
