#!/usr/bin/env bash
# Everything that needs a GPU, in one command, for a machine that may have no network: correctness against the CPU's
# reference numbers, the kernels, trajectories, resuming, the demo, and the speed of a Gemma-2B with random weights.
# usage: tests/gpu/run.sh [--minutes N] [--only STAGE,...] [--libtorch DIR] [BUILD_DIR]
#   BUILD_DIR    a CUDA build with tests, or what pack.sh made of one; without it ./bootstrap.sh build --cuda and this script make one
#   --libtorch   a LibTorch 2.11.0 for CUDA 13 to run with, where the build's own is not on this machine
#   --minutes N  begin no stage later than N minutes after the start (default 8, for a command that may take ten)
#   --only       of selftest, kernels, golden, trajectories, resume, speed, saves, demo, errors, sanitizer
# Where a command may take ten minutes, two of them get through all stages:
#   tests/gpu/run.sh --only selftest,kernels,golden,trajectories,resume,demo,errors,sanitizer BUILD_DIR
#   tests/gpu/run.sh --only speed,saves BUILD_DIR
# SPEED_MODEL names the preset of speed (default gemma-2b) and saves (gemma-3-1b), SPEED_STEPS the steps of speed (20).
# A stage that fails does not stop the others. Results: artifacts/gpu/<date>/ with a log a stage and summary.md; where OUT names
# a folder, an archive of them there, made anew after each stage, for a machine that may be gone before the end. The exit code
# is the number of stages that failed, and 1 where there is no GPU.
# shellcheck disable=SC2317  # the stages are called by name
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
fail() { echo "gpu: $*" >&2; exit 1; }
minutes=8 only='' build=''
stages=(selftest kernels golden trajectories resume speed saves demo errors sanitizer)
while [ $# -gt 0 ]; do
  case $1 in
    --minutes) minutes=${2:?--minutes needs a number}; shift 2 ;;
    --only) only=,${2:?--only needs stages},; shift 2 ;;
    --libtorch)
      libtorch=$(cd "${2:?--libtorch needs a folder}" && pwd) || fail "$2 is no folder"
      export LD_LIBRARY_PATH=$libtorch/lib:$libtorch/../nvidia/cu13/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
      shift 2
      ;;
    -h | --help) sed -n 2,15p "$0"; exit 0 ;;
    -*) fail "unknown option $1" ;;
    *) build=$(cd "$1" && pwd) || fail "$1 is no folder"; shift ;;
  esac
done
[[ $minutes =~ ^[0-9]+$ ]] || fail "--minutes: expected a whole number, got $minutes"
for name in ${only//,/ }; do
  [[ " ${stages[*]} " == *" $name "* ]] || fail "--only: $name is no stage; known are ${stages[*]}"
done
start=$SECONDS

command -v nvidia-smi >/dev/null || fail "there is no NVIDIA GPU here (nvidia-smi is not installed)"
gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | head -n 1) || fail "nvidia-smi finds no GPU"
[ -n "$gpu" ] || fail "nvidia-smi finds no GPU"
programs=(gemma-sft gemma-sft-engine gpu_test gpu_kernels_test gpu_benchmark golden_test golden_training_test)
if [ -z "$build" ]; then
  ./bootstrap.sh build --cuda || fail "the build failed"
  build=$PWD/build/cuda
  cmake --build "$build" --target "${programs[@]}" || fail "the build failed"
fi
for program in "${programs[@]}"; do
  [ -x "$build/bin/$program" ] || fail "$build/bin/$program is missing: cmake --build $build --target ${programs[*]}"
done

# A packed build knows neither its libraries nor where the cases are.
export GEMMA_SFT_GOLDEN=$PWD/tests/golden
if [ ! -e "$build/share/gemma-sft/selftest" ]; then
  mkdir -p "$build/share/gemma-sft"
  ln -sfn "$GEMMA_SFT_GOLDEN" "$build/share/gemma-sft/selftest"
fi
if [ -d "$build/lib" ]; then export LD_LIBRARY_PATH=$build/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}; fi

out=artifacts/gpu/$(date -u +%Y-%m-%dT%H%M)
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{
  echo "# $gpu"
  echo
  echo "Commit $(git rev-parse HEAD 2>/dev/null || echo unknown)$(git diff --quiet HEAD 2>/dev/null || echo ', changed')."
  echo
  echo "| stage | result | seconds |"
  echo "|---|---|---|"
} >"$out/summary.md"

failed=0
# What there is so far goes to OUT; under another name until it is whole, as the machine may stop at any time.
keep() {
  [ -d "${OUT:-}" ] || return 0
  if tar -czf "$OUT/gpu.part" -C "${out%/*}" "${out##*/}"; then
    mv "$OUT/gpu.part" "$OUT/gpu-${out##*/}.tar.gz"
  else
    echo "gpu: the results could not be written to $OUT" >&2
  fi
}
# stage NAME: runs the function of this name into its log, and says how it ended.
stage() {
  local name=$1 begin=$SECONDS result status
  if [ -n "$only" ] && [[ $only != *,$name,* ]]; then return; fi
  if [ $((SECONDS - start)) -ge $((minutes * 60)) ]; then
    result='NOT RUN: out of time'
    failed=$((failed + 1))
  else
    # Not as a condition: bash would go on after a command of the stage that fails.
    (set -e; "$name") >"$out/$name.log" 2>&1
    status=$?
    result=passed
    if [ -e "$work/skip-$name" ]; then
      result="not run: $(cat "$work/skip-$name")"
    elif [ $status -ne 0 ]; then
      result=FAILED
      failed=$((failed + 1))
    fi
  fi
  echo "gpu: $name: $result ($((SECONDS - begin)) s)"
  [ "$result" != FAILED ] || tail -n 15 "$out/$name.log"
  echo "| $name | $result | $((SECONDS - begin)) |" >>"$out/summary.md"
  keep
}
sft() { "$build/bin/gemma-sft" "$@"; }

# fp32 on every golden case, at the bars of the CPU; LibTorch's TF32 is off unless asked for.
selftest() { sft selftest --device cuda --json; }

# The same cases in bf16 within what bf16 costs the reference, packed = padded, and our GPU path against our CPU path.
golden() {
  GEMMA_SFT_TEST_DEVICE=cuda "$build/bin/golden_test"
  "$build/bin/gpu_test"
}

kernels() { "$build/bin/gpu_kernels_test"; }

sanitizer() {
  local tool mode found
  tool=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null) ||
    { echo "compute-sanitizer is not installed" | tee "$work/skip-sanitizer"; return 1; }
  # Some drivers and virtual machines do not let it at the GPU, which the smallest test shows.
  found=$("$tool" --tool memcheck "$build/bin/gpu_kernels_test" --gtest_filter='Tables/GpuKernelsOn.RoundAtRandom*/cuda' 2>&1) || true
  echo "$found"
  if grep -qi 'not supported' <<<"$found"; then
    echo "compute-sanitizer does not support this device" | tee "$work/skip-sanitizer"
    return 1
  fi
  for mode in memcheck racecheck initcheck synccheck; do
    "$tool" --tool "$mode" --error-exitcode 1 "$build/bin/gpu_kernels_test" --gtest_filter='Tables/GpuKernelsOn.*/cuda'
  done
}

# Twenty steps of transformers' Trainer, full and LoRA; the merged model; greedy text.
trajectories() { GEMMA_SFT_TEST_DEVICE=cuda "$build/bin/golden_training_test"; }

# tiny MODEL PRECISION RUN STEPS: a deterministic run on the demo's rows.
tiny() {
  cat >"$work/tiny.yaml" <<END
model: {base_model: "$1"}
dataset: {data_path: "$PWD/configs/demo/train.jsonl", format: training_example}
training: {precision: $2, deterministic: true, lr_scheduler: constant, max_steps: $4, batch_size: 16}
output: {checkpoint_every: 4}
END
  sft train --config "$work/tiny.yaml" --device cuda --output "$work/$3" --quiet
}
# With deterministic: true a run that stopped after step 8 and went on ends with the bytes of one that did not stop.
resume() {
  local precision file=final_model/model.safetensors
  sft tokenizer train --corpus configs/demo/corpus.txt --vocab-size 768 --output "$work/tokenizer"
  sft model init --config configs/demo/model.json --tokenizer "$work/tokenizer" --output "$work/base" --seed 1
  for precision in bf16_mixed bf16 fp32; do
    tiny "$work/base" "$precision" "whole-$precision" 12
    tiny "$work/base" "$precision" "parts-$precision" 8
    tiny "$work/base" "$precision" "parts-$precision" 12
    cmp "$work/whole-$precision/$file" "$work/parts-$precision/$file"
    echo "$precision: $file is the same to the byte"
  done
}

# What cannot be had is said before any work: no such device, and memory that does not suffice, with remedies.
errors() {
  local status=0 message
  message=$(sft selftest --device cuda:99 2>&1) || status=$?
  echo "$message (exit $status)"
  [ "$status" = 2 ]
  grep -q 'cuda:99' <<<"$message"
  status=0
  message=$(CUDA_VISIBLE_DEVICES='' sft selftest --device cuda 2>&1) || status=$?
  echo "$message (exit $status)"
  [ "$status" = 2 ]
  grep -q 'no GPU can be used here' <<<"$message"
  # Gemma-2B with half a million tokens at once and nothing recomputed.
  rows 8192 64 >"$work/long.jsonl"
  make_gemma gemma-2b
  status=0
  message=$(sft train --config tests/gpu/speed.yaml --device cuda --data "$work/long.jsonl" --output "$work/long" --quiet \
    --set "model.base_model=$work/gemma-2b" --set model.max_seq_length=8192 --set training.max_steps=1 \
    --set training.batch_size=64 --set training.activation_checkpointing=false 2>&1) || status=$?
  echo "$message (exit $status)"
  [ "$status" = 11 ]
  grep -q 'out of memory' <<<"$message"
  grep -q 'training.batch_size' <<<"$message"
}

demo() { configs/demo/run.sh "$build/bin" --device cuda; }

# rows LENGTH COUNT: rows of ready-made tokens, every one but the first a target.
rows() {
  awk -v tokens="$1" -v count="$2" 'BEGIN {
    srand(1)
    for (row = 1; row <= count; ++row) {
      ids = "2"; mask = "0"
      for (t = 1; t < tokens; ++t) { ids = ids "," int(4 + rand() * 700); mask = mask ",1" }
      printf "{\"id\": \"row-%d\", \"input_ids\": [%s], \"loss_mask\": [%s]}\n", row, ids, mask
    }
  }'
}
make_gemma() {
  [ ! -d "$work/$1" ] || return 0
  [ -d "$work/tokenizer" ] || sft tokenizer train --corpus configs/demo/corpus.txt --vocab-size 768 --output "$work/tokenizer"
  sft model init --preset "$1" --tokenizer "$work/tokenizer" --output "$work/$1" --dtype bf16
}
lines() { if [ -e "$1" ]; then wc -l <"$1"; else echo 0; fi; }
# measure STEPS FOLDER OPTION...: trains until that many steps are in metrics.jsonl, and no further: a final checkpoint and
# model, tens of gigabytes, would be written for nobody.
measure() {
  local steps=$1 folder=$2 trainer
  shift 2
  "$build/bin/gemma-sft" train --output "$folder" --quiet "$@" &
  trainer=$!
  while kill -0 "$trainer" 2>/dev/null; do
    if [ "$(lines "$folder/metrics.jsonl")" -ge "$steps" ]; then kill -KILL "$trainer" || true; break; fi
    sleep 0.2
  done
  wait "$trainer" || [ "$(lines "$folder/metrics.jsonl")" -ge "$steps" ]
}
# Random weights; tests/benchmarks/gpu/ is the measurement beside the Hugging Face stack.
speed() {
  local preset=${SPEED_MODEL:-gemma-2b} steps=${SPEED_STEPS:-20} precision rank
  make_gemma "$preset"
  rows 2048 256 >"$work/tokens.jsonl"
  nvidia-smi --query-gpu=timestamp,clocks.sm,power.draw,memory.used --format=csv,noheader,nounits -l 1 >"$out/speed.gpu.csv" &
  watcher=$!  # not local: the trap may run when this function is left
  trap 'kill "$watcher" 2>/dev/null || true' EXIT
  for precision in bf16 bf16_mixed; do
    for rank in 0 16; do
      measure "$steps" "$work/speed-$precision-$rank" --config tests/gpu/speed.yaml --device cuda --data "$work/tokens.jsonl" \
        --set "model.base_model=$work/$preset" --set "training.max_steps=$steps" --set "training.precision=$precision" \
        --set "lora.rank=$rank"
      cp "$work/speed-$precision-$rank/metrics.jsonl" "$out/speed-$precision-$rank.jsonl"
      cp "$work/speed-$precision-$rank/run.log" "$out/speed-$precision-$rank.run.log"
      rm -rf "$work/speed-$precision-$rank"
      awk -v name="$preset $precision, LoRA rank $rank" -F'"tokens_per_second": *' '
        NF > 1 { split($2, value, /[,}]/); rate[++n] = value[1] }
        END {
          if (n < 6) { print "too few steps were logged"; exit 1 }
          for (i = 6; i <= n; ++i) sum += 1 / rate[i]  # the first five warm up
          printf "%s: %.0f real tokens/s over %d steps\n", name, (n - 5) / sum, n - 5
        }' "$out/speed-$precision-$rank.jsonl" | tee -a "$out/speed.txt"
    done
  done
  kill "$watcher"
  trap - EXIT
  "$build/bin/gpu_benchmark" | tee "$out/kernels.txt"
}

# What checkpoints cost: how long training stood still for each of two, every 20 steps, saved at once and in the background.
# The first of the background also pins its memory, which is done once a run.
saves() {
  local preset=${SPEED_MODEL:-gemma-3-1b} background
  make_gemma "$preset"
  rows 2048 256 >"$work/tokens.jsonl"
  for background in false true; do
    sft train --config tests/gpu/speed.yaml --device cuda --data "$work/tokens.jsonl" --set "model.base_model=$work/$preset" \
      --set training.max_steps=41 --set training.precision=bf16 --set output.checkpoint_every=20 \
      --set output.keep_checkpoints=1 --set "output.background_save=$background" --output "$work/saves-$background" --quiet
    cp "$work/saves-$background/run.log" "$out/saves-$background.run.log"
    awk -v name="$preset bf16, output.background_save: $background" '
      FILENAME ~ /metrics/ { if (match($0, /"step_seconds": *[0-9.e-]+/)) { split(substr($0, RSTART, RLENGTH), v, ":"); steps += v[2] } next }
      match($0, /step (20|40): checkpoint .* saved in [0-9.]+ s/) {
        if (match($0, /stood still [0-9.]+/)) { stood = substr($0, RSTART + 12, RLENGTH - 12) }
        else { match($0, /saved in [0-9.]+/); stood = substr($0, RSTART + 9, RLENGTH - 9) }
        printf "%s, save %d: training stood still %.2f s, %.1f %% of twenty steps\n", name, ++n, stood, 100 * stood / (steps / 41 * 20)
      }
      END { if (n != 2) { print "two checkpoints were expected in the log, found " n + 0; exit 1 } }' \
      "$work/saves-$background/metrics.jsonl" "$work/saves-$background/run.log" | tee -a "$out/speed.txt"
    rm -rf "$work/saves-$background"
  done
}

for name in "${stages[@]}"; do stage "$name"; done
{
  echo
  [ ! -e "$out/speed.txt" ] || sed 's/^/- /' "$out/speed.txt"
} >>"$out/summary.md"
keep
cat "$out/summary.md"
echo "gpu: written: $out"
exit $failed
