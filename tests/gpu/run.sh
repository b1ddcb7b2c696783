#!/usr/bin/env bash
# Everything that needs a GPU, in one command: forward and backward against the CPU, the demo on the GPU, and the training
# speed of a Gemma-2B with random weights.
# usage: tests/gpu/run.sh [BUILD_DIR]     BUILD_DIR: a CUDA build; without it, ./bootstrap.sh build --cuda makes one
# Exits non-zero where there is no GPU. SPEED_STEPS=N (default 20) sets the timed steps, SPEED_MODEL another preset.
set -euo pipefail
cd "$(dirname "$0")/../.."
fail() { echo "gpu: $*" >&2; exit 1; }

command -v nvidia-smi >/dev/null || fail "there is no NVIDIA GPU here (nvidia-smi is not installed)"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || fail "nvidia-smi finds no GPU"

if [ $# -gt 0 ]; then
  build=$(cd "$1" && pwd)
else
  ./bootstrap.sh build --cuda
  build=$PWD/build/cuda
fi
if [ ! -x "$build/bin/gpu_test" ]; then cmake --build "$build" --target gpu_test gemma-sft gemma-sft-engine; fi

echo "== forward and backward against the CPU"
"$build/bin/gpu_test"

echo "== the demo on the GPU"
configs/demo/run.sh "$build/bin" --device cuda

echo "== training speed, random weights"
preset=${SPEED_MODEL:-gemma-2b}
steps=${SPEED_STEPS:-20}
place=artifacts/gpu
rm -rf "$place" && mkdir -p "$place"
"$build/bin/gemma-sft" model init --preset "$preset" --tokenizer artifacts/demo/seed-1/tokenizer --output "$place/$preset"
# Rows of ready-made tokens, 2,048 long, every token but the first a target.
awk 'BEGIN {
  srand(1)
  for (row = 1; row <= 256; ++row) {
    ids = "2"; mask = "0"
    for (t = 1; t < 2048; ++t) { ids = ids "," int(4 + rand() * 800); mask = mask ",1" }
    printf "{\"id\": \"row-%d\", \"input_ids\": [%s], \"loss_mask\": [%s]}\n", row, ids, mask
  }
}' >"$place/tokens.jsonl"
for precision in bf16 bf16_mixed; do
  "$build/bin/gemma-sft" train --config tests/gpu/speed.yaml --device cuda --data "$place/tokens.jsonl" \
    --set "model.base_model=$place/$preset" --set "training.max_steps=$steps" --set "training.precision=$precision" \
    --output "$place/run-$precision" || fail "$precision: training failed"
  awk -v name="$preset $precision" -F'"tokens_per_second": *' '
    NF > 1 { split($2, value, /[,}]/); rate[++n] = value[1] }
    END {
      if (n < 6) { print "gpu: too few steps were logged"; exit 1 }
      for (i = 6; i <= n; ++i) sum += 1 / rate[i]  # the first five warm up
      printf "%s: %.0f real tokens/s over %d steps\n", name, (n - 5) / sum, n - 5
    }' "$place/run-$precision/metrics.jsonl"
  rm -rf "$place/run-$precision"
done
