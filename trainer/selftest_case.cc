#include "trainer/selftest_case.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <set>
#include <system_error>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "data/files/folder_entry.h"
#include "model/image_text_names.h"
#include "model/json_fields.h"
#include "model/weight_files.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

constexpr const char* kCaseFile = "case.json";
constexpr const char* kExpectedFile = "expected.safetensors";
constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr uint64_t kMaxCaseBytes = 16 << 20;
constexpr size_t kMostNamed = 8;

// The files of a case are data: what is wrong with their format is no fault of a model.
template <typename Work>
auto as_data(const Work& work) {
  try {
    return work();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kModel) throw Error(ErrorKind::kData, error.what());
    throw;
  }
}

struct Description {
  std::string name;
  SelftestTolerances tolerances;
};

double tolerance(JsonFields& fields, const std::string& name, JsonProblems& problems) {
  if (!fields.has(name)) {
    problems.add(fmt::format("{} is missing; expected a number from 0", fields.quoted(name)));
    return 0;
  }
  const double value = fields.number(name, 0);
  if (value < 0) fields.refuse(name, "expected a number from 0");
  return value;
}

Description read_description(const fs::path& path) {
  if (!fs::exists(path)) {
    throw Error(ErrorKind::kData, fmt::format("{}: not found; expected a case as `gemma-sft selftest --make-script` "
                                              "makes it",
                                              path.string()));
  }
  const std::string text = read_file(path, kMaxCaseBytes);
  JsonProblems problems;
  JsonFields fields(require_json_object(text, path.string()), "", problems);
  Description description;
  if (!fields.has("name")) problems.add("\"name\" is missing; expected a string");
  description.name = fields.string("name", "");
  const std::optional<JsonValue> tolerances = fields.take("tolerances");
  if (!tolerances || tolerances->kind() != JsonKind::kObject) {
    problems.add("\"tolerances\" is missing; expected an object with \"logits_abs\", \"loss_abs\" and \"grad_rel\"");
  } else {
    JsonFields inner(*tolerances, "tolerances.", problems);
    description.tolerances = {tolerance(inner, "logits_abs", problems), tolerance(inner, "loss_abs", problems),
                              tolerance(inner, "grad_rel", problems)};
  }
  if (!problems.empty()) throw Error(ErrorKind::kData, problems.message(path.string()));
  return description;
}

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// Everything that is wrong with expected.safetensors; the first few problems are named.
class Problems {
 public:
  explicit Problems(fs::path file) : file_(std::move(file)) {}

  template <typename... Values>
  void add(fmt::format_string<Values...> format, Values&&... values) {
    if (++count_ > kMostNamed) return;
    text_ += "\n  " + fmt::format(format, std::forward<Values>(values)...);
  }
  void require_none() const {
    if (count_ == 0) return;
    const std::string more = count_ > kMostNamed ? fmt::format("\n  and {} more", count_ - kMostNamed) : "";
    throw Error(ErrorKind::kData, file_.string() + ": not the values of a case:" + text_ + more);
  }

 private:
  fs::path file_;
  std::string text_;
  size_t count_ = 0;
};

// nullptr, and a problem, when it is not there or of another dtype.
const TensorInfo* find_tensor(const SafetensorsFile& file, const std::string& name, TensorDtype dtype,
                              Problems& problems) {
  const TensorInfo* info = file.find(name);
  if (info == nullptr) {
    problems.add("{} is missing", name);
    return nullptr;
  }
  if (info->dtype != dtype) {
    problems.add("{}: dtype {}, expected {}", name, safetensors_name(info->dtype), safetensors_name(dtype));
    return nullptr;
  }
  return info;
}

template <typename T>
std::vector<T> read_all(const SafetensorsFile& file, const TensorInfo& info) {
  std::vector<T> values(info.bytes() / sizeof(T));
  file.read(info, values.data());
  return values;
}

void check_shape(const TensorInfo* info, const std::vector<int64_t>& wanted, Problems& problems) {
  if (info != nullptr && info->shape != wanted) {
    problems.add("{}: shape {}, expected {}", info->name, shape_text(info->shape), shape_text(wanted));
  }
}

void read_rows(SelftestCase& read, Problems& problems) {
  const SafetensorsFile& file = read.expected;
  const TensorInfo* ids = find_tensor(file, "input_ids", TensorDtype::kI64, problems);
  const TensorInfo* lengths = find_tensor(file, "lengths", TensorDtype::kI64, problems);
  const TensorInfo* mask = find_tensor(file, "loss_mask", TensorDtype::kU8, problems);
  const TensorInfo* logits = find_tensor(file, "logits", TensorDtype::kF32, problems);
  const TensorInfo* loss = find_tensor(file, "loss", TensorDtype::kF32, problems);
  if (ids != nullptr && (ids->shape.size() != 2 || ids->bytes() == 0)) {
    problems.add("input_ids: shape {}, expected [batch, time], both at least 1", shape_text(ids->shape));
  }
  problems.require_none();
  const int64_t batch = ids->shape[0], time = ids->shape[1];
  check_shape(lengths, {batch}, problems);
  check_shape(mask, {batch, time}, problems);
  check_shape(logits, {batch, time, read.config.vocab_size}, problems);
  if (loss->shape != std::vector<int64_t>{1}) check_shape(loss, {}, problems);
  problems.require_none();

  const std::vector<int64_t> id = read_all<int64_t>(file, *ids), length = read_all<int64_t>(file, *lengths);
  const std::vector<uint8_t> wanted = read_all<uint8_t>(file, *mask);
  int64_t targets = 0;
  for (int64_t row = 0; row < batch; ++row) {
    const int64_t tokens = length[static_cast<size_t>(row)];
    if (tokens < 1 || tokens > time) {
      problems.add("lengths[{}] is {}; expected 1 to {}", row, tokens, time);
      continue;
    }
    TokenizedExample example;
    example.id = fmt::format("row {}", row);
    for (int64_t t = 0; t < tokens; ++t) {
      const size_t at = static_cast<size_t>(row * time + t);
      if (id[at] < 0 || id[at] >= read.config.vocab_size) {
        problems.add("input_ids[{}, {}] is {}; expected 0 to {}", row, t, id[at], read.config.vocab_size - 1);
      }
      if (wanted[at] > 1) problems.add("loss_mask[{}, {}] is {}; expected 0 or 1", row, t, wanted[at]);
      example.input_ids.push_back(static_cast<int32_t>(id[at]));
      example.loss_mask.push_back(wanted[at]);
      targets += t > 0 && wanted[at] == 1 ? 1 : 0;
    }
    read.rows.push_back(std::move(example));
  }
  problems.require_none();
  if (targets == 0) problems.add("loss_mask: no token after a row's first one is a target, so there is no loss");
  problems.require_none();
  read.time = time;
  file.read(*loss, &read.loss);
}

// Hugging Face's name of a weight -> ours; nullopt: no weight of this model.
std::optional<std::string> our_name(const std::string& name, const GemmaConfig& config,
                                    const std::set<std::string>& known) {
  if (name == "lm_head.weight" || (config.image_text && name == "language_model.lm_head.weight")) return kEmbedding;
  if (known.contains(name)) return name;
  if (!config.image_text) return std::nullopt;
  const std::string ours = text_name(name);
  return known.contains(ours) ? std::optional<std::string>(ours) : std::nullopt;
}

void find_gradients(SelftestCase& read, Problems& problems) {
  const std::string prefix = "grad.";
  std::map<std::string, std::vector<int64_t>> shapes;
  std::set<std::string> known;
  for (const NamedShape& tensor : text_tensors(read.config)) {
    shapes[tensor.name] = tensor.shape;
    known.insert(tensor.name);
  }
  std::set<std::string> absent = known;
  for (const TensorInfo& info : read.expected.tensors()) {
    if (!info.name.starts_with(prefix)) continue;
    const std::string name = info.name.substr(prefix.size());
    const std::optional<std::string> parameter = our_name(name, read.config, known);
    if (!parameter) {
      problems.add("{}: the text model has no weight of this name", info.name);
      continue;
    }
    if (info.dtype != TensorDtype::kF32) {
      problems.add("{}: dtype {}, expected F32", info.name, safetensors_name(info.dtype));
    }
    check_shape(&info, shapes[*parameter], problems);
    absent.erase(*parameter);
    read.gradients.push_back({name, *parameter});
  }
  if (read.gradients.empty()) problems.add("there is no tensor grad.<parameter>");
  problems.require_none();
  read.without_gradient.assign(absent.begin(), absent.end());
}

bool is_case(const fs::path& folder) {
  return fs::exists(folder / kCaseFile) && fs::exists(folder / kExpectedFile) && fs::is_directory(folder / "model");
}

}  // namespace

std::vector<float> SelftestCase::logits(int64_t row, int64_t first, int64_t count) const {
  TensorInfo part = *expected.find("logits");
  const uint64_t bytes_per_place = static_cast<uint64_t>(config.vocab_size) * sizeof(float);
  part.begin += static_cast<uint64_t>(row * time + first) * bytes_per_place;
  part.end = part.begin + static_cast<uint64_t>(count) * bytes_per_place;
  std::vector<float> values(static_cast<size_t>(count * config.vocab_size));
  expected.read(part, values.data());
  return values;
}

void SelftestCase::read_gradient(const Gradient& gradient, float* destination) const {
  expected.read(*expected.find("grad." + gradient.name), destination);
}

SelftestCase read_selftest_case(const fs::path& folder) {
  if (!fs::is_directory(folder)) {
    throw Error(ErrorKind::kData, fmt::format("{}: not found; expected a case folder with model/, {} and {}",
                                              folder.string(), kCaseFile, kExpectedFile));
  }
  const Description description = as_data([&] { return read_description(folder / kCaseFile); });
  const fs::path file = folder / kExpectedFile;
  if (!fs::exists(file)) throw Error(ErrorKind::kData, fmt::format("{}: not found", file.string()));
  SelftestCase read{.folder = folder,
                    .name = description.name,
                    .tolerances = description.tolerances,
                    .config = load_gemma_config(folder / "model"),
                    .rows = {},
                    .time = 0,
                    .loss = 0,
                    .gradients = {},
                    .without_gradient = {},
                    .expected = as_data([&] { return SafetensorsFile(file); })};
  const WeightFiles weights(read.model_folder(), read.config);  // throws where they do not fit the config
  Problems problems(file);
  read_rows(read, problems);
  find_gradients(read, problems);
  return read;
}

std::vector<fs::path> find_selftest_cases(const fs::path& folder) {
  std::vector<fs::path> cases;
  for (const fs::path& path : list_folder(folder)) {
    if (is_case(path)) cases.push_back(path);
  }
  if (cases.empty()) {
    throw Error(ErrorKind::kIo, fmt::format("{}: there is no case in it; install gemma-sft again, or name a case with "
                                            "--case",
                                            folder.string()));
  }
  std::sort(cases.begin(), cases.end());
  return cases;
}

fs::path shipped_selftest_folder() {
  std::error_code error;
  const fs::path own = fs::read_symlink("/proc/self/exe", error);
  if (error) throw Error(ErrorKind::kIo, fmt::format("/proc/self/exe: cannot be read: {}", error.message()));
  return own.parent_path().parent_path() / "share" / "gemma-sft" / "selftest";
}

}  // namespace gemma_sft
