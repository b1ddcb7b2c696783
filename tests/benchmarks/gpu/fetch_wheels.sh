#!/usr/bin/env bash
# fetch_wheels.sh DIR: downloads the wheels of the Python side into DIR (about 3.5 GB), on a machine with a network, for
# run.sh --wheels DIR on one without. Python 3.11.
set -euo pipefail
[ $# -eq 1 ] || { sed -n 2,3p "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../../..
mkdir -p "$1"
python3 -m pip download --quiet --no-deps --require-hashes -d "$1" -r "$root/third_party/requirements-cpu.txt"
python3 -m pip download --quiet --no-deps --require-hashes -d "$1" -r "$root/third_party/requirements-cuda.txt"
python3 -m pip download --quiet --no-deps -d "$1" -r "$root/tests/compat/requirements.txt"
python3 -m pip download --quiet --no-deps -d "$1" -r "$here/requirements.txt"
du -sh "$1"
