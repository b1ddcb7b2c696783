#!/usr/bin/env bash
# The demo: from nothing to a fine-tuned Gemma. Makes a tokenizer and a tiny Gemma 3 with random weights, fine-tunes it on
# configs/demo/train.jsonl, and asks it the 240 prompts of configs/demo/test.jsonl, which it never saw.
# usage: configs/demo/run.sh BIN_DIR [--seed N]... [--device cpu|cuda]
# Each seed is a run of its own; exit 1 when one ends below 90 %.
set -euo pipefail
[ $# -ge 1 ] || { sed -n 2,5p "$0"; exit 2; }
bin=$(cd "$1" && pwd); shift
cd "$(dirname "$0")/../.."
seeds=() device=cpu
while [ $# -gt 0 ]; do
  case $1 in
    --seed) [ $# -ge 2 ] || { echo "demo: --seed needs a number" >&2; exit 2; }; seeds+=("$2"); shift 2 ;;
    --device) [ $# -ge 2 ] || { echo "demo: --device needs cpu or cuda" >&2; exit 2; }; device=$2; shift 2 ;;
    *) echo "demo: unknown option $1 (known: --seed N, --device cpu|cuda)" >&2; exit 2 ;;
  esac
done
[ ${#seeds[@]} -gt 0 ] || seeds=(1)

show() { printf '\n$ gemma-sft %s\n' "$*"; "$bin/gemma-sft" "$@"; }
exact_match() { sed -nE 's/.*"exact_match": *([0-9.]+).*/\1/p'; }

failed=0
for seed in "${seeds[@]}"; do
  place=artifacts/demo/seed-$seed
  rm -rf "$place"
  mkdir -p "$place"
  show tokenizer train --corpus configs/demo/corpus.txt --vocab-size 768 --output "$place/tokenizer"
  show model init --config configs/demo/model.json --tokenizer "$place/tokenizer" --output "$place/base_model" --seed "$seed"
  before=$("$bin/gemma-sft" eval --model "$place/base_model" --input configs/demo/test.jsonl --max-new-tokens 16 \
    --device "$device" --precision fp32 --json | exact_match)
  start=$(date +%s)
  show train --config configs/demo/demo.yaml --set "model.base_model=$place/base_model" --set "training.seed=$seed" \
    --device "$device" --output "$place/run"
  seconds=$(($(date +%s) - start))
  after=$("$bin/gemma-sft" eval --model "$place/run/final_model" --input configs/demo/test.jsonl \
    --max-new-tokens 16 --device "$device" --precision fp32 --output "$place/answers.jsonl" --json | exact_match)
  printf '\nThree of the unseen prompts, and what the model answers:\n'
  sed -n '1p;2p;3p' "$place/answers.jsonl"
  awk -v before="$before" -v after="$after" -v seed="$seed" -v seconds="$seconds" 'BEGIN {
    printf "\nseed %s: exact match on 240 unseen prompts: %.1f %% before, %.1f %% after %d s of training\n",
      seed, 100 * before, 100 * after, seconds
    exit !(before < 0.05 && after >= 0.9) }' || failed=1
  echo "the fine-tuned model: $place/run/final_model"
done
[ "$failed" = 0 ] || { echo "demo: a seed stayed below 90 %" >&2; exit 1; }
