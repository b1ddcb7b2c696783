// Every case below tests/golden: logits, loss and each gradient as Hugging Face transformers computes them (fp32,
// eager), and the same when the batch is padded instead of packed.
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "data/batches/packed_batch.h"
#include "data/files/json_text.h"
#include "data/files/safetensors.h"
#include "model/adapter_config.h"
#include "model/chunked_cross_entropy.h"
#include "model/device_batch.h"
#include "model/gemma.h"
#include "model/json_fields.h"
#include "model/weights.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

const fs::path kCases = fs::path(GEMMA_SFT_SOURCE_DIR) / "tests" / "golden";

std::vector<std::string> case_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kCases)) {
    if (fs::exists(entry.path() / "case.json")) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

struct Tolerances {
  double logits_abs = 0, loss_abs = 0, grad_rel = 0;
};

Tolerances read_tolerances(const fs::path& path) {
  const std::string text = read_file(path);
  JsonProblems problems;
  JsonFields fields(require_json_object(text, path.string()), "", problems);
  JsonFields inner(*fields.take("tolerances"), "tolerances.", problems);
  return {inner.positive("logits_abs", 0), inner.positive("loss_abs", 0), inner.positive("grad_rel", 0)};
}

at::Tensor read_tensor(const SafetensorsFile& file, const std::string& name) {
  const TensorInfo* info = file.find(name);
  if (info == nullptr) throw std::runtime_error("no tensor " + name);
  const at::ScalarType type = info->dtype == TensorDtype::kI64  ? at::kLong
                              : info->dtype == TensorDtype::kU8 ? at::kByte
                                                                : at::kFloat;
  const at::Tensor tensor = at::empty(info->shape, at::TensorOptions().dtype(type));
  file.read(*info, tensor.data_ptr());
  return tensor;
}

// "model.language_model.norm.weight" of an image-text model is our "model.norm.weight".
std::string our_name(const std::string& name) { return text_module_path(name); }

struct Expected {
  at::Tensor input_ids, lengths, loss_mask, logits, loss;
  std::map<std::string, at::Tensor> gradients;  // by our names
};

Expected read_expected(const fs::path& path) {
  const SafetensorsFile file(path);
  Expected expected{read_tensor(file, "input_ids"), read_tensor(file, "lengths"), read_tensor(file, "loss_mask"),
                    read_tensor(file, "logits"),    read_tensor(file, "loss"),    {}};
  for (const TensorInfo& info : file.tensors()) {
    if (info.name.starts_with("grad."))
      expected.gradients[our_name(info.name.substr(5))] = read_tensor(file, info.name);
  }
  return expected;
}

PackedBatch make_batch(const Expected& expected, bool padded) {
  PackedBatch batch;
  batch.document_offsets.push_back(0);
  const int64_t rows = expected.input_ids.size(0), time = expected.input_ids.size(1);
  batch.padded_length = padded ? time : 0;
  const auto ids = expected.input_ids.const_data_ptr<int64_t>();
  const auto mask = expected.loss_mask.const_data_ptr<uint8_t>();
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t length = expected.lengths.const_data_ptr<int64_t>()[row];
    for (int64_t t = 0; t < (padded ? time : length); ++t) {
      const bool targeted = t + 1 < length && mask[row * time + t + 1] != 0;
      batch.input_ids.push_back(ids[row * time + t]);
      batch.positions.push_back(t);
      batch.targets.push_back(targeted ? ids[row * time + t + 1] : -1);
      batch.target_tokens += targeted;
    }
    batch.real_tokens += length;
    batch.document_lengths.push_back(length);
    batch.document_offsets.push_back(batch.tokens());
  }
  return batch;
}

class GoldenCase : public ::testing::TestWithParam<std::tuple<std::string, bool>> {};

TEST_P(GoldenCase, LogitsLossAndEveryGradientEqualTheReference) {
  const auto& [name, padded] = GetParam();
  const fs::path folder = kCases / name;
  const Tolerances tolerances = read_tolerances(folder / "case.json");
  ASSERT_GT(tolerances.logits_abs, 0);
  const Expected expected = read_expected(folder / "expected.safetensors");

  const GemmaConfig config = load_gemma_config(folder / "model");
  Gemma model(config, {});
  load_weights(model, folder / "model");
  for (const Parameter& parameter : model.base_parameters()) at::Tensor(parameter.tensor).requires_grad_(true);

  const PackedBatch packed = make_batch(expected, padded);
  const DeviceBatch batch = to_device(packed, at::kCPU);
  const at::Tensor hidden = model.forward(batch);
  {
    at::NoGradGuard no_grad;
    const at::Tensor logits = model.logits(hidden);
    double worst = 0;
    for (int64_t row = 0; row < packed.documents(); ++row) {
      const int64_t length = packed.document_lengths[static_cast<size_t>(row)];
      const at::Tensor ours = logits.narrow(0, packed.document_offsets[static_cast<size_t>(row)], length);
      const at::Tensor theirs = expected.logits.select(0, row).narrow(0, 0, length);
      worst = std::max(worst, ours.sub(theirs).abs().max().item<double>());
    }
    EXPECT_LE(worst, tolerances.logits_abs);
    RecordProperty("logits_max_abs_err", std::to_string(worst));
  }
  const at::Tensor loss =
      chunked_cross_entropy(hidden, model.head_weight(), batch.target_rows,
                            batch.targets.index_select(0, batch.target_rows), {.logit_softcap = config.logit_softcap})
          .div(static_cast<double>(batch.target_tokens));
  EXPECT_LE(std::abs(loss.item<double>() - expected.loss.item<double>()), tolerances.loss_abs);

  loss.backward();
  size_t compared = 0;
  for (const Parameter& parameter : model.base_parameters()) {
    const auto entry = expected.gradients.find(parameter.name);
    ASSERT_NE(entry, expected.gradients.end()) << parameter.name;
    ASSERT_TRUE(parameter.tensor.grad().defined()) << parameter.name;
    const double worst = parameter.tensor.grad().sub(entry->second).abs().max().item<double>();
    EXPECT_LE(worst / (entry->second.abs().max().item<double>() + 1e-12), tolerances.grad_rel) << parameter.name;
    ++compared;
  }
  EXPECT_EQ(compared, expected.gradients.size());
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenCase, ::testing::Combine(::testing::ValuesIn(case_names()), ::testing::Bool()),
                         [](const auto& parameters) {
                           std::string name = std::get<0>(parameters.param);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name + (std::get<1>(parameters.param) ? "_padded" : "_packed");
                         });

}  // namespace
}  // namespace gemma_sft
