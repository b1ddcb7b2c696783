#!/usr/bin/env bash
# run.sh [--seconds N] [--jobs N] [--seed N] [TARGET...]: libFuzzer with AddressSanitizer and UndefinedBehaviorSanitizer
# over every target (or those named), N seconds each (default 50: 12 targets in 10 minutes on one core), from the corpora
# beside this script and what earlier runs found. Needs clang++ with its sanitizer libraries (Debian: apt-get install clang).
# Prints one line per target: executions, seconds, new inputs, crashes. A crash is written to corpus/TARGET: fix it,
# minimise it (build/fuzz/bin/fuzz_TARGET -minimize_crash=1 FILE), and leave it there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
seconds=50 jobs=1 seed=1 targets=()
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=$2; shift 2 ;;
    --jobs) jobs=$2; shift 2 ;;
    --seed) seed=$2; shift 2 ;;
    -*) sed -n '2,6s/^# //p' "$0" >&2; exit 64 ;;
    *) targets+=("$1"); shift ;;
  esac
done
clangxx=${CLANGXX:-clang++}
command -v "$clangxx" >/dev/null || { echo "run.sh: $clangxx is not there (Debian: apt-get install clang)" >&2; exit 1; }
if [ ${#targets[@]} -eq 0 ]; then
  for file in "$here"/*_fuzz.cc; do file=${file##*/}; targets+=("${file%_fuzz.cc}"); done
fi

# sentencepiece is the build of the other trees: it gets only what our own parser wrote.
sentencepiece=$("$root/third_party/fetch.sh" --no-torch --no-tools | sed -n 's/^SENTENCEPIECE_DIR=//p')
tree=$root/build/fuzz
mkdir -p "$tree"
# The comparisons of "did you mean" would be two thirds of a configuration's time, and tell nothing of its reader.
printf 'fun:*edit_distance*\nfun:*min_element*\n' >"$tree/uncovered"
cmake -S "$root" -B "$tree" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER="$clangxx" -DCMAKE_C_COMPILER="${clangxx/++/}" \
  -DGEMMA_SFT_TORCH=OFF -DGEMMA_SFT_BENCHMARKS=OFF -DGEMMA_SFT_WERROR=OFF \
  -DCMAKE_CXX_FLAGS="-fsanitize-coverage-ignorelist=$tree/uncovered" \
  -DGEMMA_SFT_SANITIZE=fuzzer-no-link,address,undefined -DSENTENCEPIECE_DIR="$sentencepiece" >"$tree/configure.log"
programs=()
for target in "${targets[@]}"; do programs+=("fuzz_$target"); done
ninja -C "$tree" -j "$(nproc)" "${programs[@]}" >"$tree/build.log" || { tail -30 "$tree/build.log" >&2; exit 1; }

export ASAN_OPTIONS=allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
total=0 failed=0
printf '%-20s %12s %8s %8s %8s %8s\n' target executions seconds per_s inputs crashes
for target in "${targets[@]}"; do
  found=$tree/found/$target
  log=$tree/$target.log
  mkdir -p "$found" "$here/corpus/$target"
  dictionary=()
  if [ -f "$here/dictionaries/$target.dict" ]; then dictionary=("-dict=$here/dictionaries/$target.dict"); fi
  before=$(find "$here/corpus/$target" -name 'crash-*' -o -name 'timeout-*' -o -name 'oom-*' -o -name 'leak-*' | wc -l)
  start=$SECONDS
  "$tree/bin/fuzz_$target" "$found" "$here/corpus/$target" "${dictionary[@]}" -max_total_time="$seconds" -seed="$seed" \
    -fork="$jobs" -timeout=5 -rss_limit_mb=1024 -max_len=16384 -print_final_stats=1 -close_fd_mask=1 \
    -artifact_prefix="$here/corpus/$target/" >"$log" 2>&1 || failed=1
  after=$(find "$here/corpus/$target" -name 'crash-*' -o -name 'timeout-*' -o -name 'oom-*' -o -name 'leak-*' | wc -l)
  executions=$(sed -nE 's/^#([0-9]+):.*/\1/p; s/^stat::number_of_executed_units: ([0-9]+)/\1/p' "$log" | tail -1)
  executions=${executions:-0} took=$((SECONDS - start))
  printf '%-20s %12s %8s %8s %8s %8s\n' "$target" "$executions" "$took" $((executions / (took > 0 ? took : 1))) \
    "$(find "$found" -type f | wc -l)" $((after - before))
  total=$((total + executions))
done
echo "$total executions, seed $seed"
exit $failed
