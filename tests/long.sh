#!/usr/bin/env bash
# long.sh BUILD_DIR SEED [NAME...]: runs the counted suites (those that the build lists, or the named ones) with their
# long counts, nproc at a time, and prints the table of their lines. ./bootstrap.sh test-long builds first, then calls
# this. The table is also BUILD_DIR/../test-long/results.md, ready for tests/results/; each program's output is a .log
# beside it. A program that fails or that prints no line is in the table as failed, and the exit status says so.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$1" && pwd) || exit 1
export GEMMA_SFT_LONG=1 GEMMA_SFT_SEED=$2
shift 2
out=$build/../test-long
mkdir -p "$out"
rm -f "$out"/*.log "$out"/*.failed "$out"/*.seconds

# run_one "NAME COMMAND": output to NAME.log, a file NAME.failed when the command fails.
run_one() {
  local name=${1%% *} command=${1#* } start=$SECONDS
  echo "long.sh: $name ..." >&2
  "$command" >"$out/$name.log" 2>&1 || echo "exit status $?" >"$out/$name.failed"
  echo $((SECONDS - start)) >"$out/$name.seconds"
  echo "long.sh: $name took $((SECONDS - start)) s$([ -e "$out/$name.failed" ] && echo ', FAILED')" >&2
}

suites=()
while IFS= read -r suite; do
  if [ $# -eq 0 ] || [[ " $* " == *" ${suite%% *} "* ]]; then suites+=("$suite"); fi
done < <(grep . "$build/long_suites")
[ ${#suites[@]} -gt 0 ] || { echo "long.sh: no such suite; the build has: $(cut -d' ' -f1 "$build/long_suites" | xargs)" >&2; exit 64; }
running=0
for suite in "${suites[@]}"; do
  if [ $running -ge "$(nproc)" ]; then wait -n; running=$((running - 1)); fi
  run_one "$suite" &
  running=$((running + 1))
done
wait

from_cache() { sed -nE "s/^$1:[A-Z]+=(.*)/\1/p" "$build/CMakeCache.txt"; }
commit=$(git -C "$here" rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
[ -z "$(git -C "$here" status --porcelain 2>/dev/null)" ] || commit+=" with local changes"
cpu=$(sed -nE 's/^model name\s*: (.*)/\1/p' /proc/cpuinfo | head -1)
memory=$(awk '/^MemTotal:/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)
libtorch=$(sed -nE 's/^torch==([^ ;]+).*/\1/p' "$here/../third_party/requirements-cpu.txt" | head -1)
failed=0
{
  echo "# The counted suites, long run"
  echo
  echo "- command: \`./bootstrap.sh test-long --seed $GEMMA_SFT_SEED\`"
  echo "- commit: $commit, $(date -u +%Y-%m-%d)"
  echo "- build: $(from_cache CMAKE_BUILD_TYPE), $("$(from_cache CMAKE_CXX_COMPILER)" --version | head -1), LibTorch $libtorch"
  echo "- machine: ${cpu:-unknown processor}, $(nproc) cores, $memory, Linux $(uname -r | cut -d. -f1,2)"
  echo
  echo "| suite | result | program | seconds |"
  echo "|---|---|---|---|"
  for suite in "${suites[@]}"; do
    name=${suite%% *}
    seconds=$(cat "$out/$name.seconds")
    # "R8 random histories: 10000/10000 (seed 1; note)" becomes a row.
    rows=$(sed -nE "s/^(\[[^]]*\] *)?((rel-)?[RSH][0-9]+[a-z]? [^:]+): (.+) \(seed [0-9]+(; )?(.*)\)\$/| \2 | \4 \6 | $name | $seconds |/p" "$out/$name.log" | sed -E 's/ +\|/ |/g')
    if [ -n "$rows" ]; then echo "$rows"; fi
    if [ -e "$out/$name.failed" ] || [ -z "$rows" ]; then
      echo "| $name | **failed**: $(cat "$out/$name.failed" 2>/dev/null || echo 'printed no result') | $name | $seconds |"
    fi
  done
} | sed -E 's/\(R\)|\(TM\)//g' >"$out/results.md"
cat "$out/results.md"
# A count that is not full is a failure, whatever its program says.
awk -F'|' 'match($3, /^ [0-9]+\/[0-9]+/) { split(substr($3, 2, RLENGTH - 1), n, "/"); if (n[1] != n[2]) bad = 1 } /\*\*failed\*\*/ { bad = 1 } END { exit bad }' \
  "$out/results.md" || failed=1
echo "long.sh: logs and table are in $(cd "$out" && pwd)" >&2
exit $failed
