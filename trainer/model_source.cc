#include "trainer/model_source.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "data/files/folder_entry.h"
#include "data/files/sha256.h"
#include "model/weight_files.h"
#include "trainer/stop_signal.h"

namespace gemma_sft {

namespace fs = std::filesystem;

Precision choose_precision(const std::optional<Precision>& asked, c10::Device device) {
  return asked.value_or(device.is_cpu() ? Precision::kFp32 : Precision::kBf16Mixed);
}

GemmaOptions model_options(Precision precision, c10::Device device) {
  GemmaOptions options;
  options.device = device;
  options.compute_dtype = precision == Precision::kFp32 ? c10::ScalarType::Float : c10::ScalarType::BFloat16;
  options.storage_dtype = precision == Precision::kBf16 ? c10::ScalarType::BFloat16 : c10::ScalarType::Float;
  return options;
}

GemmaOptions frozen_model_options(Precision precision, c10::Device device, const fs::path& folder,
                                  const GemmaConfig& config) {
  GemmaOptions options = model_options(precision, device);
  if (precision == Precision::kBf16) return options;
  const WeightFiles files(folder, config);
  std::set<TensorDtype> dtypes;
  for (const NamedShape& tensor : text_tensors(config)) dtypes.insert(files.text(tensor.name).info->dtype);
  if (dtypes == std::set{TensorDtype::kBF16}) options.storage_dtype = c10::ScalarType::BFloat16;
  if (dtypes == std::set{TensorDtype::kF16}) options.storage_dtype = c10::ScalarType::Half;
  return options;
}

std::string model_sha256(const fs::path& folder, const std::function<void()>& before_block) {
  std::vector<fs::path> paths = {folder / "config.json"};
  for (const fs::path& path : list_folder(folder)) {
    if (path.extension() == ".safetensors") paths.push_back(path);
  }
  std::sort(paths.begin() + 1, paths.end());
  Sha256 digest;
  for (const fs::path& path : paths) {
    const std::string line = path.filename().string() + " " + sha256_file(path, before_block) + "\n";
    digest.update(line.data(), line.size());
  }
  return digest.hex();
}

ModelDigest::ModelDigest(fs::path folder)
    : digest_(std::async(std::launch::async, [this, folder = std::move(folder)] {
        return model_sha256(folder, [this] {
          throw_if_stopped();
          if (dropped_) throw StopRequested{};  // nobody is going to see it
        });
      })) {}

ModelDigest::~ModelDigest() { dropped_ = true; }

std::string ModelDigest::get() { return digest_.get(); }

}  // namespace gemma_sft
