#!/usr/bin/env bash
# check_programs.sh front-end PROGRAM: PROGRAM needs no LibTorch library (else every command would wait for its loading),
# and none that opens connections: a dry-run cannot. Neither it nor the engine imports what could run code from a file,
# start another program (but the front end, which becomes the engine by exec), or open a connection.
# check_programs.sh engine PROGRAM LIBTORCH_CPU: the protobuf and abseil inside sentencepiece are not visible to the
# loader. LibTorch has copies of its own, and one process that mixes two of them corrupts its memory.
set -euo pipefail
kind=$1 program=$2
[ -x "$program" ] || { echo "$program does not exist: build it first"; exit 1; }

# imports PROGRAM PATTERN: the functions of other libraries that PROGRAM calls and that match.
imports() {
  local names
  names=$(nm -D --undefined-only "$1" | awk '{ print $NF }' | sed 's/@.*//' | c++filt)
  [ "$(wc -l <<<"$names")" -gt 50 ] || { echo "$1: its imports could not be read"; exit 1; }
  grep -E "$2" <<<"$names" || true
}
refuse_imports() {
  local found
  found=$(imports "$program" "$1")
  [ -z "$found" ] || { echo "$found"; echo "$program imports the functions above and must not: $2"; exit 1; }
}
# torch::load and its kin hold an unpickler or a TorchScript reader, which run what the file says.
unpicklers='torch::(load|pickle_load|jit::)|Unpickler|unpickle|PyTorchStreamReader|torch::serialize|InputArchive|^Py[A-Z_]'
programs='^(system|popen|fork|vfork|posix_spawnp?|wordexp|execl|execle|execlp|execvp|execvpe)$'
connections='^(socket|bind|listen|accept|accept4|connect|getaddrinfo)$'

case $kind in
  front-end)
    needed=$(readelf -d "$program" | sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p')
    [ -n "$needed" ] || { echo "$program: its needed libraries could not be read"; exit 1; }
    if grep -E '^lib(torch|c10|cudart|cupti|gomp|pq|curl)' <<<"$needed"; then
      echo "$program needs the libraries above and must not"
      exit 1
    fi
    refuse_imports "$unpicklers" "files must not run code"
    refuse_imports "$programs" "no shell and no other program"
    refuse_imports "$connections" "only gemma-sft-jobs opens connections"
    ;;
  engine)
    refuse_imports "$unpicklers" "files must not run code"
    refuse_imports "$programs|^execv" "no shell and no other program"
    refuse_imports "$connections" "only gemma-sft-jobs opens connections"
    own=$(mktemp) theirs=$(mktemp)
    trap 'rm -f "$own" "$theirs"' EXIT
    nm -D --defined-only "$program" | awk '{ print $NF }' | sort -u >"$own"
    nm -D --defined-only "$3" | awk '{ print $NF }' | sort -u >"$theirs"
    [ "$(wc -l <"$theirs")" -gt 10000 ] || { echo "$3: its symbols could not be read"; exit 1; }
    pattern='6google8protobuf|4absl|13sentencepiece|FLAGS_'
    if grep -E "$pattern" "$own"; then
      echo "$program shows the symbols above to the loader and must not"
      exit 1
    fi
    if comm -12 "$own" "$theirs" | grep -E "$pattern"; then
      echo "$program and $3 both define the symbols above"
      exit 1
    fi
    ;;
  *) echo "unknown check: $kind"; exit 1 ;;
esac
echo "$program is as it should be"
