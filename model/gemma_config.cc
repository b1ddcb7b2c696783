#include "model/gemma_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "data/files/folder_entry.h"
#include "data/files/utf8.h"
#include "model/json_fields.h"

namespace gemma_sft {
namespace {

constexpr uint64_t kMaxConfigBytes = 1 << 20;  // the largest published ones have 50 KB
constexpr int64_t kMaxPositions = int64_t{1} << 31;
constexpr const char* kTanhGelu = "gelu_pytorch_tanh";

// Keys that change nothing in training the text model: what files are called, generation defaults, what the program
// that wrote the file was. Everything else must be understood or is refused.
const std::set<std::string>& harmless_keys() {
  static const std::set<std::string> keys = {
      // identity and bookkeeping
      "_name_or_path", "_commit_hash", "_attn_implementation_autoset", "_attn_implementation", "attn_implementation",
      "transformers_version", "tokenizer_class", "finetuning_task", "task_specific_params", "problem_type", "id2label",
      "label2id", "unsloth_fixed", "unsloth_version", "model_name", "license",
      // token ids: the tokenizer's files are the truth for them
      "bos_token_id", "eos_token_id", "sep_token_id", "decoder_start_token_id", "forced_bos_token_id",
      "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens", "bad_words_ids",
      // what a forward call returns
      "use_cache", "return_dict", "output_attentions", "output_hidden_states", "output_scores",
      "return_dict_in_generate", "torchscript", "cache_implementation", "keys_to_ignore_at_inference",
      // beside text_config they are the vision tower's or nobody's
      "initializer_range", "pad_token_id",
      // generation defaults that old versions wrote into config.json
      "max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty",
      "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size",
      "encoder_no_repeat_ngram_size", "num_return_sequences", "remove_invalid_values",
      "exponential_decay_length_penalty", "prefix",
      // other frameworks, and switches of encoder-decoder models that are off here
      "use_bfloat16", "tf_legacy_loss", "chunk_size_feed_forward", "cross_attention_hidden_size", "tie_encoder_decoder",
      "gradient_checkpointing"};
  return keys;
}

// Keys that are honoured only with the value that switches the feature off.
struct FixedKey {
  const char* name;
  const char* only;  // as in JSON
  const char* remedy;
};
constexpr std::array<FixedKey, 9> kFixedKeys = {{
    {"tie_word_embeddings", "true", "only models whose head is tied to the embedding are supported"},
    {"attention_bias", "false", "attention biases are not supported"},
    {"mlp_bias", "false", "biases are not supported"},
    {"attention_dropout", "0", "dropout inside attention is not supported; set it to 0.0"},
    {"use_bidirectional_attention", "false", "only causal attention is supported"},
    {"is_encoder_decoder", "false", "encoder-decoder models are not supported"},
    {"is_decoder", "false", "cross-attention decoders are not supported"},
    {"add_cross_attention", "false", "cross-attention is not supported"},
    {"partial_rotary_factor", "1", "only full rotary embeddings are supported"},
}};

bool equals_json(const JsonValue& value, const std::string& wanted) {
  if (wanted == "true" || wanted == "false") {
    return value.kind() == JsonKind::kBool && value.boolean() == (wanted == "true");
  }
  const std::optional<double> number = json_number(value);
  return number && *number == std::stod(wanted);
}

struct Source {
  const char* model_type;
  Family family;
  std::vector<const char*> architectures;
};
const std::vector<Source>& sources() {
  static const std::vector<Source> all = {
      {"gemma", Family::kGemma1, {"GemmaForCausalLM"}},
      {"gemma2", Family::kGemma2, {"Gemma2ForCausalLM"}},
      {"gemma3_text", Family::kGemma3, {"Gemma3ForCausalLM"}},
      {"gemma3", Family::kGemma3, {"Gemma3ForConditionalGeneration"}},
  };
  return all;
}

void refuse_left_over(JsonFields& fields) {
  for (const std::string& name : fields.left_over()) {
    if (harmless_keys().contains(name)) continue;
    if (name == "quantization_config") {
      fields.refuse(name, "quantized models cannot be fine-tuned; use the unquantized model");
    } else if (name == "pruned_heads") {
      const JsonValue heads = *fields.take(name);
      bool any = heads.kind() != JsonKind::kObject;
      if (!any) heads.each_member([&](const JsonMember&) { return !(any = true); });
      if (any) fields.refuse(name, "pruned heads are not supported");
    } else {
      fields.refuse(
          name,
          "this key is not known, so its meaning cannot be honoured; if the model does not depend on it, delete "
          "the key from the file");
    }
  }
}

void check_fixed(JsonFields& fields) {
  for (const FixedKey& key : kFixedKeys) {
    const std::optional<JsonValue> value = fields.take(key.name);
    if (value && !equals_json(*value, key.only)) fields.refuse(key.name, key.remedy);
  }
}

// Which function the MLP uses. Only tanh-GELU is there; where the family reads which key, and what Gemma 1's published
// `"hidden_act": "gelu"` means, is Hugging Face's rule (transformers 5: models/gemma*/configuration_gemma*.py).
void check_activation(JsonFields& fields, Family family) {
  const std::string only = fmt::format("only \"{}\" is supported", kTanhGelu);
  const bool reads_hidden_act = family == Family::kGemma1;
  const std::string read = reads_hidden_act ? "hidden_act" : "hidden_activation";
  const std::string ignored = reads_hidden_act ? "hidden_activation" : "hidden_act";
  const std::string value = fields.string(read, kTanhGelu);
  if (value != kTanhGelu && !(reads_hidden_act && value == "gelu")) fields.refuse(read, only);
  // The key that Hugging Face does not read must not say something else: somebody may believe it.
  const std::string other = fields.string(ignored, kTanhGelu);
  if (other != kTanhGelu && !(!reads_hidden_act && other == "gelu")) fields.refuse(ignored, only);
}

struct Rope {
  double theta = 0;  // 0: not given
  double factor = 1;
  bool given = false;
};

// One dict of rope settings: {"rope_type" | "type", "rope_theta", "factor"}.
Rope read_rope(const JsonValue& value, const std::string& path, bool linear_allowed, JsonProblems& problems) {
  Rope rope;
  rope.given = true;
  JsonFields fields(value, path + ".", problems);
  const std::string type_key = fields.has("rope_type") ? "rope_type" : "type";
  const std::string type = fields.string(type_key, "default");
  if (type_key == "rope_type") {
    const std::string old = fields.string("type", type);
    if (old != type) fields.refuse("type", fmt::format("\"rope_type\" says {}", quoted_excerpt(type)));
  }
  rope.theta = fields.positive("rope_theta", 0);
  if (type == "linear" && linear_allowed && type_key == "type") {
    fields.refuse("type",
                  "transformers 5 passes over this key, earlier ones scale by it; say \"rope_type\": \"linear\"");
    fields.take("factor");
  } else if (type == "linear" && linear_allowed) {
    if (!fields.has("factor")) fields.refuse("factor", "linear scaling needs a factor");
    rope.factor = fields.positive("factor", 1);
  } else if (type == "linear") {
    fields.refuse(type_key, "linear scaling is supported on the full_attention layers of Gemma 3 only");
    fields.take("factor");
  } else if (type != "default") {
    fields.refuse(type_key,
                  linear_allowed ? "only \"default\" and \"linear\" are supported" : "only \"default\" is supported");
    for (const std::string& name : fields.left_over()) fields.take(name);
  } else if (const std::optional<JsonValue> factor = fields.take("factor"); factor && !equals_json(*factor, "1")) {
    fields.refuse("factor", "a factor needs \"rope_type\": \"linear\"");
  }
  const std::optional<JsonValue> partial = fields.take("partial_rotary_factor");
  if (partial && !equals_json(*partial, "1")) {
    fields.refuse("partial_rotary_factor", "only full rotary embeddings are supported");
  }
  for (const std::string& name : fields.left_over()) fields.refuse(name, "this key is not known");
  return rope;
}

std::optional<JsonValue> take_object(JsonFields& fields, const std::string& name) {
  const std::optional<JsonValue> value = fields.take(name);
  if (value && value->kind() != JsonKind::kObject) {
    fields.refuse(name, "expected an object");
    return std::nullopt;
  }
  return value;
}

// The value of an old key and of its new spelling: the new one counts, as in Hugging Face; saying both is fine when
// they agree.
double agreed(JsonFields& fields, const std::string& old_key, double new_value, const std::string& new_key,
              double otherwise) {
  const bool has_old = fields.has(old_key);
  const double old_value = fields.positive(old_key, otherwise);
  if (new_value == 0) return old_value;
  if (has_old && old_value != new_value) {
    fields.refuse(old_key, fmt::format("\"{}\" says {}; give one of them", new_key, new_value));
  }
  return new_value;
}

void read_rope_settings(JsonFields& fields, const std::string& path, GemmaConfig& config, JsonProblems& problems) {
  const std::optional<JsonValue> parameters = take_object(fields, "rope_parameters");
  const std::optional<JsonValue> scaling = take_object(fields, "rope_scaling");
  const std::string name = path + "rope_parameters";
  if (config.family != Family::kGemma3) {
    const Rope rope = parameters ? read_rope(*parameters, name, false, problems) : Rope{};
    const Rope scaled = scaling ? read_rope(*scaling, path + "rope_scaling", false, problems) : Rope{};
    const double new_theta = scaled.theta != 0 ? scaled.theta : rope.theta;
    config.rope_theta_global = agreed(fields, "rope_theta", new_theta, name + ".rope_theta", 10'000);
    config.rope_theta_local = config.rope_theta_global;
    return;
  }
  Rope full, sliding;
  if (parameters) {
    JsonFields kinds(*parameters, name + ".", problems);
    if (const auto value = take_object(kinds, "full_attention")) {
      full = read_rope(*value, name + ".full_attention", true, problems);
    }
    if (const auto value = take_object(kinds, "sliding_attention")) {
      sliding = read_rope(*value, name + ".sliding_attention", false, problems);
    }
    for (const std::string& left : kinds.left_over()) {
      kinds.refuse(left, "expected one object per layer type: \"full_attention\" and \"sliding_attention\"");
    }
  }
  if (scaling) {  // Hugging Face applies it to the global layers only, over rope_parameters
    const Rope scaled = read_rope(*scaling, path + "rope_scaling", true, problems);
    if (full.given && scaled.factor != full.factor) {
      fields.refuse("rope_scaling", fmt::format("\"{}.full_attention\" says another scaling; give one of them", name));
    }
    full.factor = scaled.factor;
    if (scaled.theta != 0) full.theta = scaled.theta;
  }
  config.rope_linear_factor_global = full.factor;
  config.rope_theta_global = agreed(fields, "rope_theta", full.theta, name + ".full_attention.rope_theta", 1'000'000);
  config.rope_theta_local =
      agreed(fields, "rope_local_base_freq", sliding.theta, name + ".sliding_attention.rope_theta", 10'000);
}

void read_layer_kinds(JsonFields& fields, GemmaConfig& config) {
  const auto layers = static_cast<size_t>(config.num_layers);
  const bool given = fields.has("layer_types");
  const std::optional<std::vector<std::string>> types = fields.strings("layer_types");
  int64_t pattern = config.family == Family::kGemma2 ? 2 : 6;
  if (config.family == Family::kGemma3) {
    pattern = fields.integer("sliding_window_pattern", pattern, 1, kMaxPositions);
    // Hugging Face writes this key but never reads it.
    const int64_t written = fields.integer("_sliding_window_pattern", pattern, 1, kMaxPositions);
    if (!given && written != pattern) {
      fields.refuse("_sliding_window_pattern",
                    "this key is not read; say \"sliding_window_pattern\" or list \"layer_types\"");
    }
  }
  config.layer_kinds.clear();
  if (!given) {
    for (size_t i = 0; i < layers; ++i) {
      const bool global = config.family == Family::kGemma1 || (static_cast<int64_t>(i) + 1) % pattern == 0;
      config.layer_kinds.push_back(global ? LayerKind::kGlobal : LayerKind::kSliding);
    }
    return;
  }
  if (!types) return;
  for (const std::string& type : *types) {
    if (type != "full_attention" && (type != "sliding_attention" || config.family == Family::kGemma1)) {
      fields.refuse("layer_types",
                    fmt::format("{} is not supported; expected {}", quoted_excerpt(type),
                                config.family == Family::kGemma1 ? "\"full_attention\""
                                                                 : "\"full_attention\" and \"sliding_attention\""));
      break;
    }
    config.layer_kinds.push_back(type == "full_attention" ? LayerKind::kGlobal : LayerKind::kSliding);
  }
  if (types->size() != layers) {
    fields.refuse("layer_types", fmt::format("it has {} values for {} layers", types->size(), layers));
  }
}

std::optional<double> read_softcap(JsonFields& fields, const std::string& name, std::optional<double> otherwise) {
  if (fields.is_null(name)) {
    fields.take(name);
    return std::nullopt;
  }
  if (!fields.has(name)) return otherwise;
  return fields.positive(name, 1);
}

std::string read_dtype(JsonFields& fields) {
  const std::string old_name = fields.string("torch_dtype", "");
  const std::string name = fields.string("dtype", old_name);
  if (!old_name.empty() && old_name != name) {
    fields.refuse("torch_dtype", fmt::format("\"dtype\" says {}; give one of them", quoted_excerpt(name)));
  }
  static const std::set<std::string> known = {"", "float32", "bfloat16", "float16"};
  if (!known.contains(name)) {
    fields.refuse(fields.has("dtype") ? "dtype" : "torch_dtype", "expected \"float32\", \"bfloat16\" or \"float16\"");
  }
  return name;
}

// transformers gives the row of this id no gradient from the lookup; a negative one counts from the end of the
// embedding, null means no row.
std::optional<int64_t> read_pad_id(JsonFields& fields, int64_t vocab_size) {
  if (fields.is_null("pad_token_id")) {
    fields.take("pad_token_id");
    return std::nullopt;
  }
  const int64_t id = fields.integer("pad_token_id", 0, -vocab_size, vocab_size - 1);
  return id < 0 ? id + vocab_size : id;
}

// The text model's own keys, at the top of the file or inside text_config.
void read_text_config(JsonFields& fields, const std::string& path, GemmaConfig& config, JsonProblems& problems) {
  const Family family = config.family;
  const bool first = family == Family::kGemma1;
  for (const char* name :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "query_pre_attn_scalar"}) {
    if (fields.is_null(name)) fields.refuse(name, "expected a number");
  }
  // Hugging Face's defaults: the files of Gemma 3 4B and larger leave out what equals them.
  config.vocab_size = fields.integer("vocab_size", family == Family::kGemma3 ? 262'208 : 256'000, 1, 1 << 24);
  config.pad_token_id = read_pad_id(fields, config.vocab_size);
  config.hidden_size = fields.integer("hidden_size", first ? 3072 : 2304, 1, 1 << 20);
  config.intermediate_size = fields.integer("intermediate_size", first ? 24'576 : 9216, 1, 1 << 22);
  config.num_layers = fields.integer("num_hidden_layers", first ? 28 : 26, 1, 4096);
  config.num_heads = fields.integer("num_attention_heads", first ? 16 : 8, 1, 4096);
  config.num_kv_heads = fields.integer("num_key_value_heads", first ? 16 : 4, 1, 4096);
  config.head_dim = fields.integer("head_dim", 256, 2, 4096);
  config.max_position_embeddings =
      fields.integer("max_position_embeddings", family == Family::kGemma3 ? 131'072 : 8192, 1, kMaxPositions);
  config.rms_norm_eps = fields.positive("rms_norm_eps", 1e-6);
  config.initializer_range = fields.positive("initializer_range", 0.02);
  if (config.num_heads % config.num_kv_heads != 0) {
    fields.refuse("num_key_value_heads", fmt::format("it must divide \"num_attention_heads\" ({})", config.num_heads));
  }
  if (config.head_dim % 2 != 0) fields.refuse("head_dim", "rotary embeddings need an even number");

  check_activation(fields, family);
  check_fixed(fields);
  read_layer_kinds(fields, config);
  read_rope_settings(fields, path, config, problems);

  config.qk_norm = family == Family::kGemma3;
  config.sandwich_norms = !first;
  if (first) {
    config.query_scale = 1.0 / std::sqrt(static_cast<double>(config.head_dim));
    return;
  }
  config.query_scale = 1.0 / std::sqrt(fields.positive("query_pre_attn_scalar", 256));
  const bool slides = std::count(config.layer_kinds.begin(), config.layer_kinds.end(), LayerKind::kSliding) > 0;
  if (slides && fields.is_null("sliding_window")) {
    fields.refuse("sliding_window", "the model has sliding_attention layers; expected an integer above 0");
  }
  config.sliding_window = fields.integer("sliding_window", 4096, 1, kMaxPositions);
  // Early Gemma 2 files say it twice.
  const int64_t again = fields.integer("sliding_window_size", config.sliding_window, 1, kMaxPositions);
  if (again != config.sliding_window) {
    fields.refuse("sliding_window_size",
                  fmt::format("\"sliding_window\" says {}; give one of them", config.sliding_window));
  }
  const bool second = family == Family::kGemma2;
  config.attention_softcap =
      read_softcap(fields, "attn_logit_softcapping", second ? std::optional(50.0) : std::nullopt);
  config.logit_softcap = read_softcap(fields, "final_logit_softcapping", second ? std::optional(30.0) : std::nullopt);
  if (!second && config.attention_softcap) {
    fields.refuse("attn_logit_softcapping", "attention of Gemma 3 has no soft-cap; set it to null");
  }
  if (config.image_text && config.logit_softcap) {
    fields.refuse("final_logit_softcapping", "image-text models have no soft-cap; set it to null");
  }
}

std::string supported_types() {
  std::string text;
  for (const Source& source : sources()) text += fmt::format("{}\"{}\"", text.empty() ? "" : ", ", source.model_type);
  return text;
}

const Source* find_source(JsonFields& fields) {
  const std::string type = fields.string("model_type", "");
  for (const Source& source : sources()) {
    if (type == source.model_type) return &source;
  }
  fields.refuse("model_type", "only Gemma 1, 1.1, 2 and 3 can be fine-tuned: expected one of " + supported_types());
  return nullptr;
}

void check_architectures(JsonFields& fields, const Source& source) {
  for (const std::string& name : fields.strings("architectures").value_or(std::vector<std::string>{})) {
    if (std::find(source.architectures.begin(), source.architectures.end(), name) == source.architectures.end()) {
      fields.refuse("architectures", fmt::format("expected \"{}\" for model_type \"{}\"", source.architectures.front(),
                                                 source.model_type));
      return;
    }
  }
}

void read_image_text(JsonFields& fields, GemmaConfig& config, JsonProblems& problems) {
  config.image_text = true;
  // Carried into the result, not interpreted: the vision part is not trained.
  for (const char* name : {"vision_config", "mm_tokens_per_image", "boi_token_index", "eoi_token_index",
                           "image_token_index", "boi_token_id", "eoi_token_id", "image_token_id"}) {
    fields.take(name);
  }
  check_fixed(fields);
  const std::optional<JsonValue> text = take_object(fields, "text_config");
  if (!text) {
    if (!fields.is_null("text_config") && fields.has("text_config")) return;
    fields.refuse("text_config", "an image-text model needs it; a text-only model has model_type \"gemma3_text\"");
    return;
  }
  JsonFields inner(*text, "text_config.", problems);
  const std::string type = inner.string("model_type", "gemma3_text");
  if (type != "gemma3_text") inner.refuse("model_type", "expected \"gemma3_text\"");
  inner.strings("architectures");
  const std::string dtype = read_dtype(inner);
  if (config.dtype.empty()) config.dtype = dtype;
  read_text_config(inner, "text_config.", config, problems);
  refuse_left_over(inner);
}

// A double as JSON that Python reads as a float.
std::string json_float(double value) {
  const std::string text = fmt::format("{}", value);
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

std::string json_softcap(const std::optional<double>& value) { return value ? json_float(*value) : "null"; }

// query_scale is scalar^-0.5; Hugging Face wants the scalar, as an integer where it is one.
std::string json_scalar(double query_scale) {
  const double scalar = 1.0 / (query_scale * query_scale);
  const double rounded = std::round(scalar);
  if (std::abs(scalar - rounded) <= 1e-9 * scalar) return fmt::format("{}", static_cast<int64_t>(rounded));
  return json_float(scalar);
}

// "sliding_window_pattern" for readers that know no layer_types; 0 when no pattern describes the layers.
int64_t layer_pattern(const std::vector<LayerKind>& kinds) {
  const auto first = std::find(kinds.begin(), kinds.end(), LayerKind::kGlobal);
  const int64_t pattern = first - kinds.begin() + 1;
  for (size_t i = 0; i < kinds.size(); ++i) {
    const bool global = (static_cast<int64_t>(i) + 1) % pattern == 0;
    if (global != (kinds[i] == LayerKind::kGlobal)) return 0;
  }
  return pattern;
}

}  // namespace

int64_t GemmaConfig::parameter_count() const {
  const int64_t queries = num_heads * head_dim;
  const int64_t keys = num_kv_heads * head_dim;
  const int64_t attention = hidden_size * (queries + 2 * keys) + queries * hidden_size;
  const int64_t mlp = 3 * hidden_size * intermediate_size;
  const int64_t norms = hidden_size * (sandwich_norms ? 4 : 2) + (qk_norm ? 2 * head_dim : 0);
  return vocab_size * hidden_size + num_layers * (attention + mlp + norms) + hidden_size;
}

GemmaConfig parse_gemma_config(const std::string& json, const std::string& name_for_messages) {
  const JsonValue root = require_json_object(json, name_for_messages);
  JsonProblems problems;
  JsonFields fields(root, "", problems);
  GemmaConfig config;
  if (const Source* source = find_source(fields)) {
    config.family = source->family;
    config.dtype = read_dtype(fields);
    check_architectures(fields, *source);
    if (std::string(source->model_type) == "gemma3") {
      read_image_text(fields, config, problems);
    } else {
      read_text_config(fields, "", config, problems);
    }
    refuse_left_over(fields);
  }
  if (!problems.empty()) throw Error(ErrorKind::kModel, problems.message(name_for_messages));
  return config;
}

GemmaConfig load_gemma_config(const std::filesystem::path& model_folder) {
  const std::filesystem::path path = model_folder / "config.json";
  if (!has_folder_entry(model_folder, "config.json")) {
    throw Error(ErrorKind::kModel,
                fmt::format("{}: not found; a model folder in Hugging Face's layout has a config.json", path.string()));
  }
  return parse_gemma_config(read_file(path, kMaxConfigBytes), path.string());
}

std::string to_config_json(const GemmaConfig& config, const std::string& dtype, const TokenIds& ids) {
  const bool third = config.family == Family::kGemma3;
  const bool first = config.family == Family::kGemma1;
  std::string text = "{\n";
  const auto line = [&](const std::string& name, const std::string& value) {
    text += fmt::format("  \"{}\": {},\n", name, value);
  };
  line("architectures", fmt::format("[\n    \"Gemma{}ForCausalLM\"\n  ]", first ? "" : third ? "3" : "2"));
  line("attention_bias", "false");
  line("attention_dropout", "0.0");
  if (!first) line("attn_logit_softcapping", json_softcap(config.attention_softcap));
  line("bos_token_id", fmt::format("{}", ids.bos));
  line("dtype", fmt::format("\"{}\"", dtype));
  line("eos_token_id", fmt::format("{}", ids.eos));
  if (!first) line("final_logit_softcapping", json_softcap(config.logit_softcap));
  line("head_dim", fmt::format("{}", config.head_dim));
  line(first ? "hidden_act" : "hidden_activation", fmt::format("\"{}\"", kTanhGelu));
  line("hidden_size", fmt::format("{}", config.hidden_size));
  line("initializer_range", json_float(config.initializer_range));
  line("intermediate_size", fmt::format("{}", config.intermediate_size));
  if (!first) {
    std::string types;
    for (const LayerKind kind : config.layer_kinds) {
      types += fmt::format("{}\n    \"{}\"", types.empty() ? "" : ",",
                           kind == LayerKind::kGlobal ? "full_attention" : "sliding_attention");
    }
    line("layer_types", "[" + types + "\n  ]");
  }
  line("max_position_embeddings", fmt::format("{}", config.max_position_embeddings));
  line("model_type", fmt::format("\"gemma{}\"", first ? "" : third ? "3_text" : "2"));
  line("num_attention_heads", fmt::format("{}", config.num_heads));
  line("num_hidden_layers", fmt::format("{}", config.num_layers));
  line("num_key_value_heads", fmt::format("{}", config.num_kv_heads));
  line("pad_token_id", fmt::format("{}", ids.pad));
  if (!first) line("query_pre_attn_scalar", json_scalar(config.query_scale));
  line("rms_norm_eps", json_float(config.rms_norm_eps));
  const std::string theta = json_float(config.rope_theta_global);
  if (third) {
    const bool linear = config.rope_linear_factor_global != 1.0;
    const std::string factor = json_float(config.rope_linear_factor_global);
    line("rope_local_base_freq", json_float(config.rope_theta_local));
    line("rope_parameters",
         fmt::format(
             "{{\n    \"full_attention\": {{{}\n      \"rope_theta\": {},\n      \"rope_type\": \"{}\"\n    }},\n"
             "    \"sliding_attention\": {{\n      \"rope_theta\": {},\n      \"rope_type\": \"default\"\n"
             "    }}\n  }}",
             linear ? "\n      \"factor\": " + factor + "," : "", theta, linear ? "linear" : "default",
             json_float(config.rope_theta_local)));
    line("rope_scaling",
         linear ? fmt::format("{{\n    \"factor\": {},\n    \"rope_type\": \"linear\"\n  }}", factor) : "null");
  } else {
    line("rope_parameters", fmt::format("{{\n    \"rope_theta\": {},\n    \"rope_type\": \"default\"\n  }}", theta));
  }
  line("rope_theta", theta);
  if (!first) line("sliding_window", fmt::format("{}", config.sliding_window));
  if (third && layer_pattern(config.layer_kinds) != 0) {
    line("sliding_window_pattern", fmt::format("{}", layer_pattern(config.layer_kinds)));
  }
  line("tie_word_embeddings", "true");
  line("torch_dtype", fmt::format("\"{}\"", dtype));
  line("use_cache", "true");
  text += fmt::format("  \"vocab_size\": {}\n}}\n", config.vocab_size);
  return text;
}

}  // namespace gemma_sft
