#!/usr/bin/env bash
# run.sh BIN_DIR [MODEL_DIR]: what a user does next with what gemma-sft wrote. In a Python environment of its own
# (environment.sh), transformers loads the model (fp32, eager attention) and must generate the tokens that `gemma-sft generate`
# gives; peft loads the adapter and must give them too, with the layers and the numbers of the merged export.
#
# BIN_DIR holds gemma-sft. MODEL_DIR is a final_model: a model folder, or a PEFT folder whose base is found. Without it, a tiny
# Gemma 1, 2 and 3 are made, trained on rows.jsonl, fully and with LoRA, and each result is checked.
set -euo pipefail
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  sed -n 2,8p "$0" >&2
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
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1 PYTHONWARNINGS=ignore
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
echo "compatible: transformers and peft give the tokens of gemma-sft"
