#!/usr/bin/env bash
# run.sh [NAME...]: do the suites have teeth? Each mutant of mutants.tsv takes one protection out of the file layer or of
# the checkpoint protocol, in a copy of the sources below build/mutants; the test named beside it has to fail. Prints each
# mutant and `R4b mutants of the file and checkpoint protocol: N/N (seed S)`, and fails where one survives or cannot be
# made any more. A test that finds a mutant by chance is given seeds S, S+1, S+2 (S: GEMMA_SFT_SEED, 1 without it).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$root/build/mutants
seed=${GEMMA_SFT_SEED:-1}
unset GEMMA_SFT_LONG  # the counts of every change have to be enough
export GTEST_BRIEF=1

# Times are kept, so that a second run builds little.
mkdir -p "$work/source"
tar -C "$root" -c CMakeLists.txt configs data model trainer tests third_party | tar -x -C "$work/source"
cmake -S "$work/source" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGEMMA_SFT_BENCHMARKS=OFF \
  -DGEMMA_SFT_WERROR=OFF >"$work/configure.log" 2>&1 || { cat "$work/configure.log"; exit 1; }
cd "$work"

build() { ninja -C build "$@" >build.log 2>&1; }
passes() { "build/bin/$1" --gtest_filter="$2" >test.log 2>&1; }  # PROGRAM FILTER

mutants=()
while IFS= read -r line; do
  name=${line%%$'\t'*}
  if [ $# -eq 0 ] || [[ " $* " == *" $name "* ]]; then mutants+=("$line"); fi
done < <(grep -vE '^(#|$)' "$here/mutants.tsv")
[ ${#mutants[@]} -gt 0 ] || { echo "run.sh: no such mutant"; exit 64; }

mapfile -t programs < <(printf '%s\n' "${mutants[@]}" | cut -f4 | sort -u)
build "${programs[@]}" || { tail -40 build.log; exit 1; }
while IFS=$'\t' read -r program filter; do
  passes "$program" "$filter" || { tail -40 test.log; echo "run.sh: $program $filter fails without any mutant"; exit 1; }
done < <(printf '%s\n' "${mutants[@]}" | cut -f4,5 | sort -u)

killed=0 survivors=()
for mutant in "${mutants[@]}"; do
  IFS=$'\t' read -r name file change program filter <<<"$mutant"
  cp -p "source/$file" original
  sed -E -z -i "$change" "source/$file"
  outcome="SURVIVED $filter"
  if cmp -s original "source/$file"; then
    outcome="CANNOT BE MADE: its pattern is not in $file any more"
  elif ! build "$program"; then
    outcome="DOES NOT COMPILE: $(grep -m1 'error:' build.log || true)"
  else
    for try in 0 1 2; do
      export GEMMA_SFT_SEED=$((seed + try))
      if passes "$program" "$filter"; then continue; fi
      outcome="killed by $(grep -m1 -oE '\[  FAILED  \] [A-Za-z0-9_./]+' test.log | cut -c14- || true)"
      [ "$outcome" != "killed by " ] || outcome="killed: $program ended with a signal or without a result"
      killed=$((killed + 1))
      break
    done
  fi
  case $outcome in killed*) ;; *) survivors+=("$name") ;; esac
  printf '%-45s %s\n' "$name" "$outcome"
  cp -p original "source/$file"
  touch "source/$file"
done
note=""
if [ ${#survivors[@]} -gt 0 ]; then note="; not killed: ${survivors[*]}"; fi
echo "R4b mutants of the file and checkpoint protocol: $killed/${#mutants[@]} (seed $seed$note)"
[ ${#survivors[@]} -eq 0 ]
