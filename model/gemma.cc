#include "model/gemma.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "configs/error.h"
#include "model/activation_checkpoint.h"
#include "model/attention.h"
#include "model/blockwise_attention.h"
#include "model/embedding.h"
#include "model/gelu_gate.h"
#include "model/gpu/attention_times.h"
#include "model/gpu/flash_attention.h"
#include "model/gpu/fused.h"
#include "model/linear.h"
#include "model/lora_targets.h"
#include "model/peft_folder.h"
#include "model/rms_norm.h"
#include "model/rotary_embedding.h"

namespace gemma_sft {
namespace {

struct Block {
  LayerKind kind = LayerKind::kGlobal;
  Linear query, key, value, output;
  at::Tensor query_norm, key_norm;  // Gemma 3
  Linear gate, up, down;
  at::Tensor attention_norm, after_attention_norm;  // the second one: Gemma 2 and 3
  at::Tensor mlp_norm, after_mlp_norm;              // the second one: Gemma 2 and 3
};

// What all blocks of one forward pass share.
struct Pass {
  RotaryTable global_table, local_table;
  DocumentLayout layout;
};

}  // namespace

struct Gemma::State {
  GemmaConfig config;
  GemmaOptions options;
  bool training = false;
  at::Tensor embedding, final_norm;
  std::vector<Block> blocks;
  bool has_lora = false;
  LoraOptions lora;
  std::map<LayerKind, AttentionTimes> attention_times;  // of the kinds whose way was chosen by time

  at::Tensor embed_scaled(const at::Tensor& ids) const;
  RotaryTable table(const at::Tensor& positions, LayerKind kind) const;
  AttentionOptions attention_options(LayerKind kind) const;
  at::Tensor some_query() const;  // of one token: what can take queries of this model is asked with it
  std::string describe_attention(LayerKind kind, const at::Tensor& query) const;
  template <typename Attention>
  at::Tensor run_block(const Block& block, const at::Tensor& x, const RotaryTable& rotary,
                       const Attention& attention) const;
  std::vector<Linear*> linears();
  std::vector<const Linear*> linears() const;
};

at::Tensor Gemma::State::embed_scaled(const at::Tensor& ids) const {
  const at::ScalarType dtype = options.compute_dtype;
  const double scale = embedding_scale(config.hidden_size, dtype);
  if (takes_fused(FusedKernel::kEmbedding, embedding)) {
    return fused_embed(ids, embedding, scale, dtype, config.pad_token_id);
  }
  return embed(ids, embedding, dtype, config.pad_token_id).mul(scale);
}

RotaryTable Gemma::State::table(const at::Tensor& positions, LayerKind kind) const {
  const bool global = kind == LayerKind::kGlobal;
  return rotary_table(positions, config.head_dim, global ? config.rope_theta_global : config.rope_theta_local,
                      global ? config.rope_linear_factor_global : 1.0, options.compute_dtype);
}

AttentionOptions Gemma::State::attention_options(LayerKind kind) const {
  const auto timed = attention_times.find(kind);
  return {.scale = config.query_scale,
          .softcap = config.attention_softcap,
          .window = kind == LayerKind::kSliding ? config.sliding_window : 0,
          .by_blocks = timed != attention_times.end() && prefers_blocks(timed->second)};
}

at::Tensor Gemma::State::some_query() const {
  return at::empty({1, config.num_heads, config.head_dim},
                   at::TensorOptions().device(options.device).dtype(options.compute_dtype));
}

std::string Gemma::State::describe_attention(LayerKind kind, const at::Tensor& query) const {
  const AttentionOptions attention = attention_options(kind);
  const bool flash = takes_flash(query, attention);
  const auto timed = attention_times.find(kind);
  if (timed != attention_times.end()) {
    const double milliseconds[] = {1e3 * timed->second.flash, 1e3 * timed->second.blocks};
    return flash ? fmt::format("flash ({:.2f} ms a layer, by blocks {:.2f})", milliseconds[0], milliseconds[1])
                 : fmt::format("by blocks ({1:.2f} ms a layer, flash {0:.2f})", milliseconds[0], milliseconds[1]);
  }
  return flash ? "flash" : "by blocks (flash: " + find_flash_obstacle(query, attention).value_or("switched off") + ")";
}

// attention: (query [tokens, heads, head_dim], key, value [tokens, kv_heads, head_dim]) -> [tokens, heads * head_dim].
template <typename Attention>
at::Tensor Gemma::State::run_block(const Block& block, const at::Tensor& x, const RotaryTable& rotary,
                                   const Attention& attention) const {
  const double eps = config.rms_norm_eps;
  const int64_t tokens = x.size(0);
  const at::Tensor normed = rms_norm(x, block.attention_norm, eps);
  const auto heads = [&](const Linear& linear, int64_t count) {
    return apply(linear, normed, training).view({tokens, count, config.head_dim});
  };
  // The norms of query and key are undefined where the model has none.
  const at::Tensor query = norm_and_rotate(heads(block.query, config.num_heads), block.query_norm, eps, rotary);
  const at::Tensor key = norm_and_rotate(heads(block.key, config.num_kv_heads), block.key_norm, eps, rotary);
  at::Tensor attended = apply(block.output, attention(query, key, heads(block.value, config.num_kv_heads)), training);
  if (config.sandwich_norms) attended = rms_norm(attended, block.after_attention_norm, eps);
  const auto [middle, mlp_input] = add_rms_norm(x, attended, block.mlp_norm, eps);

  at::Tensor mlp = apply(
      block.down, gelu_gate(apply(block.gate, mlp_input, training), apply(block.up, mlp_input, training)), training);
  if (config.sandwich_norms) mlp = rms_norm(mlp, block.after_mlp_norm, eps);
  return middle.add(mlp);
}

std::vector<Linear*> Gemma::State::linears() {
  std::vector<Linear*> all;
  for (Block& block : blocks) {
    for (Linear* linear :
         {&block.query, &block.key, &block.value, &block.output, &block.gate, &block.up, &block.down}) {
      all.push_back(linear);
    }
  }
  return all;
}

std::vector<const Linear*> Gemma::State::linears() const {
  const std::vector<Linear*> all = const_cast<State*>(this)->linears();
  return {all.begin(), all.end()};
}

Gemma::Gemma(const GemmaConfig& config, const GemmaOptions& options) : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.config = config;
  state.options = options;
  const auto parameter = [&](at::IntArrayRef sizes) {
    return at::zeros(sizes, at::TensorOptions().dtype(options.storage_dtype).device(options.device))
        .requires_grad_(true);
  };
  const int64_t width = config.hidden_size;
  state.embedding = parameter({config.vocab_size, width});
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    const auto linear = [&](const std::string& name, int64_t out, int64_t in) {
      Linear made;
      made.path = layer + name;
      made.weight = parameter({out, in});
      return made;
    };
    Block block;
    block.kind = config.layer_kinds.at(i);
    block.query = linear("self_attn.q_proj", config.num_heads * config.head_dim, width);
    block.key = linear("self_attn.k_proj", config.num_kv_heads * config.head_dim, width);
    block.value = linear("self_attn.v_proj", config.num_kv_heads * config.head_dim, width);
    block.output = linear("self_attn.o_proj", width, config.num_heads * config.head_dim);
    if (config.qk_norm) {
      block.query_norm = parameter({config.head_dim});
      block.key_norm = parameter({config.head_dim});
    }
    block.gate = linear("mlp.gate_proj", config.intermediate_size, width);
    block.up = linear("mlp.up_proj", config.intermediate_size, width);
    block.down = linear("mlp.down_proj", width, config.intermediate_size);
    block.attention_norm = parameter({width});
    block.mlp_norm = parameter({width});
    if (config.sandwich_norms) {
      block.after_attention_norm = parameter({width});
      block.after_mlp_norm = parameter({width});
    }
    state.blocks.push_back(std::move(block));
  }
  state.final_norm = parameter({width});
}

Gemma::~Gemma() = default;
Gemma::Gemma(Gemma&&) noexcept = default;

const GemmaConfig& Gemma::config() const { return state_->config; }
const GemmaOptions& Gemma::options() const { return state_->options; }
at::Tensor Gemma::head_weight() const { return state_->embedding; }
bool Gemma::has_lora() const { return state_->has_lora; }
void Gemma::set_training(bool training) { state_->training = training; }

void Gemma::choose_attention(const DeviceBatch& batch) {
  State& state = *state_;
  state.attention_times.clear();
  const at::Tensor query = state.some_query();
  for (const LayerKind kind : state.config.layer_kinds) {
    const AttentionOptions options = state.attention_options(kind);
    if (state.attention_times.contains(kind) || !is_attention_left_open(query, options)) continue;
    const AttentionShape shape{state.config.num_heads, state.config.num_kv_heads, state.config.head_dim};
    state.attention_times[kind] = time_attention(batch, shape, state.options.compute_dtype, options);
  }
}

std::string Gemma::describe_kernels() const {
  const State& state = *state_;
  const at::Tensor query = state.some_query();
  std::string attention = state.describe_attention(LayerKind::kGlobal, query);
  if (state.attention_times.contains(LayerKind::kSliding)) {
    attention += ", with a window " + state.describe_attention(LayerKind::kSliding, query);
  }
  return "our kernels: " + describe_fused(query) + "; attention: " + attention;
}

void Gemma::recompute_layers(int64_t layers) {
  state_->options.activation_checkpointing = layers > 0;
  state_->options.recomputed_layers = layers;
}

at::Tensor Gemma::forward(const DeviceBatch& batch) {
  State& state = *state_;
  // Shared, because the graph keeps what a checkpointed block needs to run again.
  const auto pass = std::make_shared<Pass>();
  pass->layout = lay_out_documents(batch);
  pass->global_table = state.table(batch.positions, LayerKind::kGlobal);
  pass->local_table = state.table(batch.positions, LayerKind::kSliding);
  const bool draws = state.has_lora && state.training && state.lora.dropout > 0;

  at::Tensor x = state.embed_scaled(batch.input_ids);
  const auto layers = static_cast<int64_t>(state.blocks.size());
  const int64_t recomputed = !state.options.activation_checkpointing ? 0
                             : state.options.recomputed_layers < 0   ? layers
                                                                     : state.options.recomputed_layers;
  for (int64_t layer = 0; layer < layers; ++layer) {
    const Block& block = state.blocks[static_cast<size_t>(layer)];
    const auto run = [&state, &block, pass](const at::Tensor& input) {
      const RotaryTable& rotary = block.kind == LayerKind::kGlobal ? pass->global_table : pass->local_table;
      return state.run_block(block, input, rotary,
                             [&](const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) {
                               return attend(query, key, value, pass->layout, state.attention_options(block.kind));
                             });
    };
    x = layer < recomputed ? checkpointed(x, run, draws) : run(x);
  }
  return rms_norm(x, state.final_norm, state.config.rms_norm_eps);
}

at::Tensor Gemma::logits(const at::Tensor& hidden) {
  const at::Tensor raw = times_transposed(hidden, state_->embedding).to(at::kFloat);
  const std::optional<double> softcap = state_->config.logit_softcap;
  return softcap ? raw.div(*softcap).tanh().mul(*softcap) : raw;
}

at::Tensor Gemma::decode(const std::vector<int64_t>& new_tokens, KvCache& cache) {
  if (new_tokens.empty()) throw Error(ErrorKind::kInternal, "decode: no token given");
  State& state = *state_;
  at::NoGradGuard no_grad;
  cache.layers.resize(state.blocks.size());
  const auto tokens = static_cast<int64_t>(new_tokens.size());
  const at::Device device = state.options.device;
  const at::Tensor ids = at::tensor(at::IntArrayRef(new_tokens), at::TensorOptions().dtype(at::kLong)).to(device);
  const at::Tensor positions =
      at::arange(cache.length, cache.length + tokens, at::TensorOptions().dtype(at::kLong).device(device));
  const RotaryTable global_table = state.table(positions, LayerKind::kGlobal);
  const RotaryTable local_table = state.table(positions, LayerKind::kSliding);

  at::Tensor x = state.embed_scaled(ids);
  for (size_t i = 0; i < state.blocks.size(); ++i) {
    const Block& block = state.blocks[i];
    KvCache::Layer& kept = cache.layers[i];
    const AttentionOptions options = state.attention_options(block.kind);
    x = state.run_block(
        block, x, block.kind == LayerKind::kGlobal ? global_table : local_table,
        [&](const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) {
          at::Tensor keys = key.transpose(0, 1), values = value.transpose(0, 1);
          if (kept.keys.defined()) {
            keys = at::cat({kept.keys, keys}, 1);
            values = at::cat({kept.values, values}, 1);
          }
          const at::Tensor output = blockwise_attention(query.unsqueeze(0), keys.transpose(0, 1).unsqueeze(0),
                                                        values.transpose(0, 1).unsqueeze(0), options);
          // The next token sees itself and window - 1 before it.
          const int64_t surplus = options.window > 0 ? std::max<int64_t>(0, keys.size(1) - (options.window - 1)) : 0;
          kept.keys = keys.narrow(1, surplus, keys.size(1) - surplus).contiguous();
          kept.values = values.narrow(1, surplus, values.size(1) - surplus).contiguous();
          return output.reshape({tokens, -1});
        });
  }
  cache.length += tokens;
  const at::Tensor last = x.narrow(0, tokens - 1, 1);
  return logits(rms_norm(last, state.final_norm, state.config.rms_norm_eps)).squeeze(0);
}

std::vector<Parameter> Gemma::base_parameters() const {
  std::vector<Parameter> parameters;
  const auto add = [&](const std::string& name, const at::Tensor& tensor, bool decays) {
    if (tensor.defined()) parameters.push_back({name + ".weight", tensor, decays});
  };
  const State& state = *state_;
  add("model.embed_tokens", state.embedding, true);
  for (size_t i = 0; i < state.blocks.size(); ++i) {
    const Block& block = state.blocks[i];
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    for (const Linear* linear : {&block.query, &block.key, &block.value, &block.output}) {
      add(linear->path, linear->weight, true);
    }
    add(layer + "self_attn.q_norm", block.query_norm, false);
    add(layer + "self_attn.k_norm", block.key_norm, false);
    for (const Linear* linear : {&block.gate, &block.up, &block.down}) add(linear->path, linear->weight, true);
    add(layer + "input_layernorm", block.attention_norm, false);
    if (state.config.sandwich_norms) {
      add(layer + "post_attention_layernorm", block.after_attention_norm, false);
      add(layer + "pre_feedforward_layernorm", block.mlp_norm, false);
      add(layer + "post_feedforward_layernorm", block.after_mlp_norm, false);
    } else {
      add(layer + "post_attention_layernorm", block.mlp_norm, false);
    }
  }
  add("model.norm", state.final_norm, false);
  return parameters;
}

void Gemma::add_lora(const LoraOptions& options, uint64_t seed) {
  State& state = *state_;
  if (state.has_lora) throw Error(ErrorKind::kInternal, "add_lora: the model has an adapter already");
  if (options.rank < 1)
    throw Error(ErrorKind::kUsage, "lora.rank: must be at least 1, found " + std::to_string(options.rank));
  require_targets(options.target_modules, linear_layers(state.config));
  for (const Parameter& parameter : base_parameters()) at::Tensor(parameter.tensor).requires_grad_(false);
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const auto on_host = at::TensorOptions().dtype(at::kFloat);
  for (Linear* linear : state.linears()) {
    if (!is_target(linear->path, options.target_modules)) continue;
    const int64_t in = linear->weight.size(1), out = linear->weight.size(0);
    // Kaiming-uniform with a = sqrt(5) over `in` inputs, as PEFT: the bound is 1 / sqrt(in).
    const double bound = 1.0 / std::sqrt(static_cast<double>(in));
    linear->lora_a = at::empty({options.rank, in}, on_host)
                         .uniform_(-bound, bound, generator)
                         .to(state.options.device)
                         .requires_grad_(true);
    linear->lora_b = at::zeros({out, options.rank}, on_host.device(state.options.device)).requires_grad_(true);
    linear->lora_scale = options.scale();
    linear->lora_dropout = options.dropout;
  }
  state.lora = options;
  state.has_lora = true;
}

const LoraOptions& Gemma::lora_options() const {
  if (!state_->has_lora) throw Error(ErrorKind::kInternal, "lora_options: the model has no adapter");
  return state_->lora;
}

std::vector<Parameter> Gemma::lora_parameters() const {
  std::vector<Parameter> parameters;
  for (const Linear* linear : std::as_const(*state_).linears()) {
    if (!linear->lora_a.defined()) continue;
    parameters.push_back({to_string(LoraTensorName{linear->path, LoraMatrix::kA}), linear->lora_a, true});
    parameters.push_back({to_string(LoraTensorName{linear->path, LoraMatrix::kB}), linear->lora_b, true});
  }
  return parameters;
}

at::Tensor Gemma::merged_weight(const std::string& base_name) const {
  at::NoGradGuard no_grad;
  for (const Linear* linear : std::as_const(*state_).linears()) {
    if (linear->path + ".weight" != base_name || !linear->lora_a.defined()) continue;
    const at::Tensor delta = at::mm(linear->lora_b, linear->lora_a).mul_(linear->lora_scale);
    return delta.add_(linear->weight).to(linear->weight.scalar_type());
  }
  for (const Parameter& parameter : base_parameters()) {
    if (parameter.name == base_name) return parameter.tensor.detach();
  }
  throw Error(ErrorKind::kInternal, "merged_weight: the model has no \"" + base_name + "\"");
}

std::vector<Parameter> Gemma::trainable_parameters() const {
  return state_->has_lora ? lora_parameters() : base_parameters();
}

}  // namespace gemma_sft
