#!/usr/bin/env bash
# run.sh BIN_DIR [MODEL_DIR]: what a user does next with what gemma-sft wrote. In a Python environment of its own
# (environment.sh), transformers loads the model (fp32, eager attention) and must generate the tokens that `gemma-sft generate`
# gives; peft loads the adapter and must give them too, with the layers and the numbers of the merged export.
#
# TRL goes on from it and gemma-sft from TRL's; gguf and safetensors read it; peft's adapters are read; a tokenizer.json of Gemma's
# size is rebuilt. README.md has the list.
#
# BIN_DIR holds gemma-sft. MODEL_DIR is a final_model: a model folder, or a PEFT folder whose base is found. Without it, a tiny
# Gemma 1, 2 and 3 are made, trained on rows.jsonl, fully and with LoRA, and each result is checked.
set -euo pipefail
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  sed -n 2,11p "$0" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
bin=$(cd "$1" && pwd)
model=${2:+$(cd "$2" && pwd)}
python=$("$here/environment.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Nothing here asks the hub for anything.
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1 PYTHONWARNINGS=ignore HF_DATASETS_CACHE=$work/datasets
check() { "$python" "$here/check_generation.py" --bin "$bin" --work "$work/check" "$@"; }

if [ -n "$model" ]; then
  if [ -e "$model/adapter_config.json" ]; then
    "$bin/gemma-sft" export --input "$model" --format merged --dtype fp32 --output "$work/merged" --quiet >/dev/null
    check --model "$work/merged" --adapter "$model"
  else
    check --model "$model"
  fi
  exit 0
fi

cd "$work"
run() { "$bin/gemma-sft" "$@" --quiet >>commands.log; }
run tokenizer train --corpus "$root/configs/demo/corpus.txt" --vocab-size 768 --output tokenizer
train() {  # NAME BASE [KEY=VALUE...]
  local name=$1 base=$2 sets=()
  shift 2
  for value in "$@"; do sets+=(--set "$value"); done
  run train --config few_rows.yaml --device cpu --set "model.base_model=$base" ${sets[@]+"${sets[@]}"} --output "$name"
}
cat >few_rows.yaml <<YAML
dataset: {data_path: $here/rows.jsonl}
training: {max_steps: 150, batch_size: 5, learning_rate: 1e-2, warmup_steps: 10, precision: fp32}
output: {checkpoint_every: 0}
YAML
for family in 1 2 3; do
  base=$work/base-$family
  run model init --preset tiny-gemma-$family --tokenizer tokenizer --output "$base" --dtype fp32 --seed $family
  train "full-$family" "$base"
  echo "== Gemma $family, full fine-tuning"
  check --model "full-$family/final_model"
  echo "== Gemma $family, result written as bf16"
  train "bf16-$family" "$base" output.model_dtype=bf16
  check --model "bf16-$family/final_model"
  echo "== Gemma $family, LoRA"
  train "lora-$family" "$base" lora.rank=4 lora.alpha=8 'lora.target_modules=[q_proj, v_proj, down_proj]'
  run export --input "lora-$family/final_model" --base "$base" --format merged --dtype fp32 --output "merged-$family"
  check --model "merged-$family" --adapter "lora-$family/final_model" --base "$base"
done
for family in 1 2 3; do
  echo "== Gemma $family, what other tools do next"
  "$python" "$here/check_gguf.py" --model "full-$family/final_model"
  "$python" "$here/check_gguf.py" --model "base-$family" --adapter "lora-$family/final_model"
  "$python" "$here/check_adapter.py" --bin "$bin" --model "$work/base-$family" --work "$work/peft-$family"
  # Few steps, so that the loss is worth comparing.
  train "short-$family" "$work/base-$family" training.max_steps=40 output.checkpoint_every=20
  "$python" "$here/check_trl.py" --bin "$bin" --model "$work/short-$family/final_model" --work "$work/trl-$family"
  check --model "trl-$family/from-theirs/final_model"
done
echo "== random models, by the script of selftest"
"$python" "$here/check_selftest.py" --bin "$bin" --work "$work/random" --count 12
echo "== safetensors"
"$python" "$here/check_safetensors.py" --bin "$bin" --run "$work" --work "$work/safetensors"
for generation in 1 3; do
  pieces=$((generation == 1 ? 256000 : 262144))
  echo "== tokenizer.json without tokenizer.model, the layout of Gemma $generation"
  "$python" "$here/gemma_tokenizer.py" "published-$generation" --generation $generation --pieces $pieces
  mkdir json-only
  mv "published-$generation"/tokenizer{,_config}.json json-only
  "$python" "$here/tokenizer_check.py" --program "$bin/gemma-sft" --model json-only --original "published-$generation/tokenizer.model"
  rm -r json-only
done
echo "compatible: transformers, peft, TRL, gguf and safetensors go on where gemma-sft ends"
