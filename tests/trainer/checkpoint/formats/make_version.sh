#!/usr/bin/env bash
# make_version.sh BIN_DIR: makes version-<N>/ beside this script with the programs in BIN_DIR, N being the format version
# that they write: a tiny base model, rows, and a checkpoint after two of four steps of a full fine-tuning and of a LoRA
# run. Run once when a format version is released; what it made then stays as it is. Works in /tmp/gemma-sft-format,
# because a checkpoint says where its base model was.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=$(cd "$1" && pwd)
work=/tmp/gemma-sft-format
rm -rf "$work"
mkdir -p "$work/tokenizer"
cp "$here/../../../data/fixtures/tiny_tokenizer.model" "$work/tokenizer/tokenizer.model"
cd "$work"
cat >model.json <<'END'
{"model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"], "vocab_size": 512, "hidden_size": 16,
 "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
 "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
 "rope_local_base_freq": 10000.0, "query_pre_attn_scalar": 8, "sliding_window": 8, "sliding_window_pattern": 2,
 "attention_bias": false, "tie_word_embeddings": true, "torch_dtype": "float32"}
END
for row in 1 2 3 4 5 6 7 8; do
  echo "{\"id\": \"row-$row\", \"prompt\": \"What is $row + $row?\", \"response\": \"Answer: $((row + row))\"}"
done >rows.jsonl
cat >config.yaml <<'END'
model:
  base_model: base
dataset:
  data_path: rows.jsonl
training:
  max_steps: 4
  batch_size: 2
  learning_rate: 1e-2
  precision: fp32
  seed: 7
output:
  checkpoint_every: 2
  keep_checkpoints: 9
END
export OMP_NUM_THREADS=1
"$bin/gemma-sft" model init --config model.json --tokenizer tokenizer --output base --dtype fp32 --seed 3 --quiet
"$bin/gemma-sft" train --config config.yaml --device cpu --output full --run-id full --quiet
"$bin/gemma-sft" train --config config.yaml --device cpu --output lora --run-id lora --quiet --set lora.rank=2 \
  --set lora.dropout=0.1
version=$(sed -nE 's/.*"version": ([0-9]+).*/\1/p' full/checkpoint-2/manifest.json)
made=$here/version-$version
[ ! -e "$made" ] || { echo "$made exists: a released format stays as it is" >&2; exit 1; }
mkdir "$made" "$made/full" "$made/lora"
cp -r base rows.jsonl config.yaml "$made"
cp -r full/checkpoint-2 "$made/full"
cp -r lora/checkpoint-2 "$made/lora"
