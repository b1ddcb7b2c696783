"""Details of the numbers that a reimplementation gets wrong, each as the change that takes it away.

(name, [(file, text, text instead), ...], programs whose tests must notice, the quickest first)
"""

GOLDEN = ["golden_test"]
RUNS = ["golden_training_test"]
MODEL = ["model_test"]
TRAINER = ["trainer_test"]
TEXT = ["golden_tokens_test", "data_text_test"]
BATCHES = ["data_batches_test", "golden_test"]

MUTANTS = [
    # Embedding
    ("embedding is not scaled", [("model/gemma.cc", "return embed(ids, embedding, dtype, config.pad_token_id).mul(scale);", "return embed(ids, embedding, dtype, config.pad_token_id);")], GOLDEN),
    ("embedding scale is not rounded", [("model/embedding.cc", "      .to(dtype)\n      .item", "      .to(dtype == at::kFloat ? dtype : at::kFloat)\n      .item")], MODEL),
    ("head is scaled, too", [("model/gemma.cc", "times_transposed(hidden, state_->embedding)",
                              "times_transposed(hidden, state_->embedding).mul(embedding_scale(state_->config.hidden_size, at::kFloat))")], GOLDEN),
    ("lookup gives no gradient", [("model/embedding.cc", "total.index_add_(0, ids, rows);", "")], GOLDEN),
    ("head gives no gradient", [("model/chunked_cross_entropy.cc", "return {std::move(hidden_gradient), std::move(weight_gradient)};",
                                 "return {std::move(hidden_gradient), weight_gradient.zero_()};")], GOLDEN),
    ("lookup of the pad id gives a gradient", [("model/embedding.cc", "    if (pad_id) rows = rows.masked_fill(ids.eq(*pad_id).unsqueeze(1), 0);\n", "")], GOLDEN),
    ("pad id of the config is not read", [("model/gemma_config.cc", "  return id < 0 ? id + vocab_size : id;", "  return 0 * id;")], ["model_files_test"]),
    # RMSNorm
    ("norm without 1 +", [("model/rms_norm.cc", ".to(at::kFloat).add(1.0)", ".to(at::kFloat)")], GOLDEN),
    ("1 + weight in the weight's dtype", [("model/rms_norm.cc", ".to(at::kFloat).add(1.0)", ".add(1.0).to(at::kFloat)")], MODEL),
    ("norm rounds before it scales", [("model/cpu_kernels_body.h", "store_block(out + i, load_block(x + i, lanes) * factor * load_block(scale + i, lanes), lanes);",
                                       "store_block(out + i, rounded_to(T{}, load_block(x + i, lanes) * factor) * load_block(scale + i, lanes), lanes);")], MODEL),
    ("norm without eps", [("model/cpu_kernels_body.h", "static_cast<float>(width) + eps)", "static_cast<float>(width) + 0 * eps)")], GOLDEN),
    ("no norm after attention", [("model/gemma.cc", "  if (config.sandwich_norms) attended = rms_norm(attended, block.after_attention_norm, eps);\n", "")], GOLDEN),
    ("no norm after the MLP", [("model/gemma.cc", "  if (config.sandwich_norms) mlp = rms_norm(mlp, block.after_mlp_norm, eps);\n", "")], GOLDEN),
    ("no final norm", [("model/gemma.cc", "  return rms_norm(x, state.final_norm, state.config.rms_norm_eps);", "  return x;")], GOLDEN),
    # GeGLU
    ("exact gelu forward", [("model/gelu_gate.cc", "if (!has_row_kernels(gate)) return at::gelu(gate, \"tanh\").mul_(up);", "return at::gelu(gate, \"none\").mul_(up);")], GOLDEN),
    ("exact gelu backward", [("model/gelu_gate.cc", "  if (!has_row_kernels(gate)) {\n    return {at::gelu_backward(at::mul(gradient, up), gate, \"tanh\"), at::gelu(gate, \"tanh\").mul_(gradient)};",
                              "  if (gate.defined()) {\n    return {at::gelu_backward(at::mul(gradient, up), gate, \"none\"), at::gelu(gate, \"none\").mul_(gradient)};")], GOLDEN),
    ("gate and up exchanged", [("model/gemma.cc", "gelu_gate(apply(block.gate, mlp_input, training), apply(block.up, mlp_input, training))",
                                "gelu_gate(apply(block.up, mlp_input, training), apply(block.gate, mlp_input, training))")], GOLDEN),
    # RoPE
    ("angles from bf16 positions", [("model/rotary_embedding.cc", "positions.to(at::kFloat), frequencies", "positions.to(at::kBFloat16).to(at::kFloat), frequencies")], MODEL),
    ("turned the other way", [("model/cpu_kernels_body.h", "load_block(sin + i, lanes) * direction;", "load_block(sin + i, lanes) * -direction;")], MODEL + GOLDEN),
    ("thetas of local and global layers exchanged", [("model/gemma.cc", "global ? config.rope_theta_global : config.rope_theta_local", "global ? config.rope_theta_local : config.rope_theta_global")], GOLDEN),
    ("linear scaling on every layer", [("model/gemma.cc", "global ? config.rope_linear_factor_global : 1.0", "config.rope_linear_factor_global")], GOLDEN),
    ("no linear scaling", [("model/rotary_embedding.cc", ".reciprocal_().div_(linear_factor)", ".reciprocal_().div_(linear_factor > 0 ? 1.0 : 2.0)")], GOLDEN),
    ("QK-norm after RoPE", [("model/rotary_embedding.cc", "return rotate(weight.defined() ? rms_norm(x, weight, eps) : x, table);",
                             "return weight.defined() ? rms_norm(rotate(x, table), weight, eps) : rotate(x, table);")], GOLDEN),
    ("no QK-norm", [("model/rotary_embedding.cc", "return rotate(weight.defined() ? rms_norm(x, weight, eps) : x, table);", "return rotate(x, table);")], GOLDEN),
    # Attention
    ("query scale from head_dim", [("model/gemma_config.cc", "std::sqrt(fields.positive(\"query_pre_attn_scalar\", 256))", "std::sqrt(0 * fields.positive(\"query_pre_attn_scalar\", 256) + static_cast<double>(config.head_dim))")], GOLDEN),
    ("soft-cap before the scale", [("model/cpu_kernels_body.h", "    Floats value = load_block(visible + i, lanes) * row.scale;\n    if (row.softcap > 0) value = row.softcap * tanh(value / row.softcap);",
                                    "    Floats value = load_block(visible + i, lanes);\n    if (row.softcap > 0) value = row.softcap * tanh(value / row.softcap);\n    value *= row.scale;")], MODEL + GOLDEN),
    ("no soft-cap of attention", [("model/blockwise_attention.cc", "result.softcap = static_cast<float>(options.softcap.value_or(0.0));", "result.softcap = 0.0f;")], MODEL + GOLDEN),
    ("slope of the soft-cap left out", [("model/cpu_kernels_body.h", "slope = row.scale * (1.0f - t * t);", "slope = row.scale * (1.0f - 0.0f * t);")], MODEL + GOLDEN),
    ("window one key longer", [("model/blockwise_attention.cc", "std::max<int64_t>(0, result.last - options.window)", "std::max<int64_t>(0, result.last - options.window - 1)")], GOLDEN),
    ("window one key shorter", [("model/blockwise_attention.cc", "std::max<int64_t>(0, result.last - options.window)", "std::max<int64_t>(0, result.last - std::max<int64_t>(1, options.window - 1))")], GOLDEN),
    ("window on global layers, too", [("model/gemma.cc", "kind == LayerKind::kSliding ? config.sliding_window : 0", "kind == LayerKind::kSliding || config.sliding_window > 0 ? config.sliding_window : 0")], GOLDEN),
    ("first layer of a pattern is the global one", [("model/gemma_config.cc", "(static_cast<int64_t>(i) + 1) % pattern == 0;\n      config.layer_kinds", "static_cast<int64_t>(i) % pattern == 0;\n      config.layer_kinds")], ["model_files_test"]),
    ("key heads in turn, not in groups", [("model/blockwise_attention.cc", "x.reshape({shape.documents, shape.queries, shape.kv_heads, shape.group, shape.dim})\n      .transpose(1, 2)",
                                           "x.reshape({shape.documents, shape.queries, shape.group, shape.kv_heads, shape.dim})\n      .transpose(2, 3)\n      .transpose(1, 2)"),
                                          ("model/blockwise_attention.cc", "      .transpose(1, 2)\n      .reshape({shape.documents, shape.queries, shape.kv_heads * shape.group, shape.dim});",
                                           "      .transpose(1, 2)\n      .transpose(2, 3)\n      .reshape({shape.documents, shape.queries, shape.kv_heads * shape.group, shape.dim});")], GOLDEN),
    # Loss
    ("no soft-cap of the logits in the loss", [("model/chunked_cross_entropy.cc", "static_cast<float>(softcap.value_or(0.0))", "0.0f")], GOLDEN),
    ("no soft-cap of the logits elsewhere", [("model/gemma.cc", "return softcap ? raw.div(*softcap).tanh().mul(*softcap) : raw;", "return raw;")], GOLDEN),
    ("slope of the logits' soft-cap left out", [("model/cpu_kernels_body.h", "softcap > 0 ? 1.0f / (softcap * softcap) : 0.0f", "softcap > 0 ? 0.0f : 0.0f")], GOLDEN),
    ("a target that is the pad id is left out", [("data/batches/packer.cc", "example.loss_mask[t + 1] != 0;", "example.loss_mask[t + 1] != 0 && example.input_ids[t + 1] != 0;")], GOLDEN),
    ("mask of the token before", [("data/batches/packer.cc", "example.loss_mask[t + 1] != 0;", "example.loss_mask[t] != 0;")], BATCHES),
    ("loss over all tokens, not targets", [("trainer/train_step.cc", "std::max<int64_t>(1, target_tokens_)", "std::max<int64_t>(1, tokens_)")], RUNS),
    ("mean of the means of micro-batches", [("trainer/train_step.cc", "  loss.backward();", "  loss.div(static_cast<double>(batch.target_tokens)).backward();"),
                                            ("trainer/train_step.cc", "losses_.push_back(forward_and_backward(batch));",
                                             "losses_.push_back(forward_and_backward(batch).div(static_cast<double>(batch.target_tokens)));"),
                                            ("trainer/train_step.cc", "std::max<int64_t>(1, target_tokens_)", "losses_.size()")], RUNS),
    # Packing
    ("positions go on across documents", [("data/batches/packer.cc", "batch.positions.push_back(static_cast<int64_t>(t));", "batch.positions.push_back(static_cast<int64_t>(batch.positions.size()));")], BATCHES),
    ("documents see each other", [("model/attention.cc", "  if (batch.padded_length > 0) {", "  if (batch.padded_length == 0) {\n    layout.groups.push_back({1, tokens});\n    return layout;\n  }\n  if (batch.padded_length > 0) {")], GOLDEN),
    # Optimizer
    ("weight decay on norms", [("model/gemma.cc", "add(layer + \"input_layernorm\", block.attention_norm, false);", "add(layer + \"input_layernorm\", block.attention_norm, true);")], RUNS),
    ("no weight decay on the embedding", [("model/gemma.cc", "add(\"model.embed_tokens\", state.embedding, true);", "add(\"model.embed_tokens\", state.embedding, false);")], RUNS),
    ("no clipping", [("trainer/train_step.cc", "  if (options_.max_grad_norm > 0) {", "  if (options_.max_grad_norm > 1e9) {")], RUNS),
    ("clipping before the division", [("trainer/train_step.cc", "norm.add(1e-6).div_(options_.max_grad_norm)", "norm.mul(targets).add(1e-6).div_(options_.max_grad_norm)")], RUNS),
    ("Adam's updates are not counted", [("trainer/optimizer.cc", "if (steps_.defined()) steps_.add_(skip.neg().add_(1));", "if (steps_.defined()) steps_.fill_(1);")], RUNS),
    ("first step of the warm-up at a rate above 0", [("trainer/schedule.cc", "static_cast<double>(step) / static_cast<double>(warmup_steps)", "static_cast<double>(step + 1) / static_cast<double>(warmup_steps)")], ["trainer_run_test"]),
    ("decay begins at step 0", [("trainer/schedule.cc", "std::max<int64_t>(1, total_steps - warmup_steps)", "std::max<int64_t>(1, total_steps)")], ["trainer_run_test"]),
    ("no least rate", [("trainer/schedule.cc", "* (1.0 - min_ratio) + min_ratio)", "* 1.0)")], ["trainer_run_test"]),
    # LoRA
    ("alpha is not divided by the rank", [("model/lora.cc", ": static_cast<double>(rank));", ": 1.0);")], MODEL + RUNS),
    ("rsLoRA divides by the rank", [("model/lora.cc", "rslora ? std::sqrt(static_cast<double>(rank))", "rslora ? static_cast<double>(rank)")], MODEL + RUNS),
    ("dropout also when not training", [("model/linear.cc", "training && linear.lora_dropout > 0", "linear.lora_dropout > 0")], MODEL),
    ("no dropout at all", [("model/linear.cc", "training && linear.lora_dropout > 0", "training && linear.lora_dropout > 1")], MODEL),
    ("merged without the scale", [("model/gemma.cc", "at::mm(linear->lora_b, linear->lora_a).mul_(linear->lora_scale)", "at::mm(linear->lora_b, linear->lora_a)")], MODEL + RUNS),
    ("merged in the storage dtype", [("model/gemma.cc", "return delta.add_(linear->weight).to(linear->weight.scalar_type());", "return delta.to(linear->weight.scalar_type()).add_(linear->weight);")], MODEL),
    ("B does not begin at zero", [("model/gemma.cc", "linear->lora_b = at::zeros({out, options.rank}", "linear->lora_b = at::full({out, options.rank}, 0.01"),
                                  ("model/gemma.cc", "#include <ATen/ops/empty.h>", "#include <ATen/ops/empty.h>\n#include <ATen/ops/full.h>")], MODEL),
    ("the frozen base still gets gradients", [("model/gemma.cc", "at::Tensor(parameter.tensor).requires_grad_(false);", "at::Tensor(parameter.tensor).requires_grad_(true);")], MODEL),
    ("the frozen base is stored in fp32", [("trainer/model_source.cc", "options.storage_dtype = c10::ScalarType::BFloat16;", "options.storage_dtype = c10::ScalarType::Float;")], TRAINER),
    ("init_from keeps the scale of the configuration", [("trainer/train_setup.cc", "  if (config.lora.rank > 0 && config.lora.init_from) {", "  if (config.lora.rank > 9999 && config.lora.init_from) {")], ["run_training_test"]),
    # Generation
    ("cache keeps one key too few", [("model/gemma.cc", "keys.size(1) - (options.window - 1)", "keys.size(1) - std::max<int64_t>(1, options.window - 2)")], MODEL + RUNS),
    ("positions begin anew with each token", [("model/gemma.cc", "at::arange(cache.length, cache.length + tokens,", "at::arange(0, tokens,")], MODEL + RUNS),
    ("an answer goes on past <end_of_turn>", [("trainer/inference_model.cc", "  add_id(answer_stops, tokenizer->end_of_turn_id());\n", "")], TRAINER),
    # Text
    ("no <bos>", [("data/text/chat_template.cc", "  control(kBos, false);\n", "")], TEXT),
    ("<bos> is a target", [("data/text/chat_template.cc", "control(kBos, false);", "control(kBos, purpose == Purpose::kTraining);")], TEXT),
    ("<end_of_turn> is no target", [("data/text/chat_template.cc", "control(kEndOfTurn, trained);", "control(kEndOfTurn, false);")], TEXT),
    ("the newline after a turn is no target", [("data/text/chat_template.cc", "template_text(\"\\n\", trained);", "template_text(\"\\n\", false);")], TEXT),
    ("text is not stripped", [("data/text/chat_template.cc", "= strip_like_python(turn.text);", "= turn.text;")], TEXT),
    ("only ASCII space is stripped", [("data/text/chat_template.cc", "  if (first == 0xe3 && byte(1) == 0x80 && byte(2) == 0x80) return 3;  // U+3000\n", "")], TEXT),
    ("the system text is stripped", [("data/text/chat_template.cc", "segments.push_back({SegmentKind::kUserText, *system, false});", "segments.push_back({SegmentKind::kUserText, std::string(strip_like_python(*system)), false});")], TEXT),
    ("prompt and answer are cut together", [("data/text/chat_template.cc", " &&\n                         segments[i + 1].trained == segment.trained;", ";")], TEXT),
    ("control tokens spelt in a text are obeyed", [("data/text/chat_template.cc", ": tokenizer.encode_literal(joined),", ": tokenizer.encode_parsing_control_tokens(joined),")], TEXT),
]
