// The cases below tests/golden (see its README), as the tests of model and trainer read them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/batches/packed_batch.h"
#include "model/gemma.h"

namespace gemma_sft {

using NamedTensors = std::map<std::string, at::Tensor>;

std::vector<std::string> golden_case_names();
std::filesystem::path golden_folder(const std::string& name);
nlohmann::json read_golden_json(const std::string& name);  // its case.json
// The CPU, or what GEMMA_SFT_TEST_DEVICE names ("cuda"): tests/gpu/run.sh runs these tests on a GPU. Its bars
// are the CPU's, but for packed against padded.
at::Device test_device();
// On test_device().
Gemma load_golden_model(const std::string& name, const GemmaOptions& options = {});

// Every tensor of a file, in its own dtype.
NamedTensors read_tensors(const std::filesystem::path& path);
// The tensors whose name begins with `prefix`, without it and by our names: what an image-text model calls
// "model.language_model.norm.weight" is our "model.norm.weight".
NamedTensors tensors_of_model(const NamedTensors& tensors, const std::string& prefix);

enum class Layout { kPacked, kPadded };
// Rows [begin, end) of input_ids, lengths and loss_mask as one micro-batch, by the packer of training.
PackedBatch make_batch(const NamedTensors& tensors, int64_t begin, int64_t end, Layout layout);
PackedBatch make_batch(const NamedTensors& tensors, Layout layout);

// The larger of two errors; NaN is larger than any number, where std::max would drop it.
double larger_error(double a, double b);
// The largest |a - b| over the real tokens of a batch: `ours` [tokens, n] in the batch's layout, `theirs` [rows, time,
// n].
double largest_error(const at::Tensor& ours, const at::Tensor& theirs, const PackedBatch& batch);

// "gemma-1-mqa" as a part of a test's name.
std::string test_name(const std::string& case_name);

}  // namespace gemma_sft
