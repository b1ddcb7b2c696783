#include "tests/model/golden_case.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <stdexcept>

#include "data/batches/packer.h"
#include "data/files/json_text.h"
#include "data/files/safetensors.h"
#include "model/image_text_names.h"
#include "model/weights.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

at::ScalarType scalar_type(TensorDtype dtype) {
  switch (dtype) {
    case TensorDtype::kI64: return at::kLong;
    case TensorDtype::kU8: return at::kByte;
    case TensorDtype::kF32: return at::kFloat;
    case TensorDtype::kF64: return at::kDouble;
    default: throw std::runtime_error(std::string("a golden case has no tensors of dtype ") + safetensors_name(dtype));
  }
}

}  // namespace

// GEMMA_SFT_GOLDEN: where the folder is on a machine that did not build this program.
fs::path golden_folder(const std::string& name) {
  const char* elsewhere = std::getenv("GEMMA_SFT_GOLDEN");
  return (elsewhere != nullptr ? fs::path(elsewhere) : fs::path(GEMMA_SFT_SOURCE_DIR) / "tests" / "golden") / name;
}

std::vector<std::string> golden_case_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(golden_folder(""))) {
    if (fs::exists(entry.path() / "case.json")) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

nlohmann::json read_golden_json(const std::string& name) {
  return nlohmann::json::parse(read_file(golden_folder(name) / "case.json"));
}

at::Device test_device() {
  const char* name = std::getenv("GEMMA_SFT_TEST_DEVICE");
  return at::Device(name == nullptr ? "cpu" : name);
}

Gemma load_golden_model(const std::string& name, const GemmaOptions& given) {
  const fs::path folder = golden_folder(name) / "model";
  GemmaOptions options = given;
  options.device = test_device();
  return load_gemma(folder, options);
}

NamedTensors read_tensors(const fs::path& path) {
  const SafetensorsFile file(path);
  NamedTensors tensors;
  for (const TensorInfo& info : file.tensors()) {
    const at::Tensor tensor = at::empty(info.shape, at::TensorOptions().dtype(scalar_type(info.dtype)));
    file.read(info, tensor.data_ptr());
    tensors[info.name] = tensor;
  }
  return tensors;
}

NamedTensors tensors_of_model(const NamedTensors& tensors, const std::string& prefix) {
  NamedTensors found;
  for (const auto& [name, tensor] : tensors) {
    if (name.starts_with(prefix)) found[text_name(name.substr(prefix.size()))] = tensor;
  }
  return found;
}

PackedBatch make_batch(const NamedTensors& tensors, int64_t begin, int64_t end, Layout layout) {
  const int64_t time = tensors.at("input_ids").size(1);
  std::vector<TokenizedExample> rows;
  std::vector<int64_t> lines;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t length = tensors.at("lengths").const_data_ptr<int64_t>()[row];
    const auto* ids = tensors.at("input_ids").const_data_ptr<int64_t>() + row * time;
    const auto* mask = tensors.at("loss_mask").const_data_ptr<uint8_t>() + row * time;
    rows.push_back({std::to_string(row), {ids, ids + length}, {mask, mask + length}});
    lines.push_back(row + 1);
  }
  return pack(rows, lines, "golden case", {.packing = layout == Layout::kPacked, .pad_id = 0});
}

PackedBatch make_batch(const NamedTensors& tensors, Layout layout) {
  return make_batch(tensors, 0, tensors.at("lengths").size(0), layout);
}

double larger_error(double a, double b) { return std::isnan(a) || b <= a ? a : b; }

double largest_error(const at::Tensor& ours, const at::Tensor& theirs, const PackedBatch& batch) {
  double worst = 0;
  for (int64_t row = 0; row < batch.documents(); ++row) {
    const auto i = static_cast<size_t>(row);
    const at::Tensor a = ours.narrow(0, batch.document_offsets[i], batch.document_lengths[i]);
    const at::Tensor b = theirs.select(0, row).narrow(0, 0, batch.document_lengths[i]);
    worst = larger_error(worst, a.sub(b).abs().max().item<double>());
  }
  return worst;
}

std::string test_name(const std::string& case_name) {
  std::string name = case_name;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

}  // namespace gemma_sft
