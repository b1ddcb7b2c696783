// The golden cases as starting points for cases that are changed.
#pragma once

#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "data/files/safetensors.h"
#include "tests/testing/temp_dir.h"
#include "trainer/selftest_case.h"

namespace gemma_sft {

inline const std::filesystem::path kGoldenFolder = std::filesystem::path(GEMMA_SFT_SOURCE_DIR) / "tests" / "golden";

// The first golden case whose model is, or is not, an image-text model.
inline std::filesystem::path golden_case(bool image_text = false) {
  for (const std::filesystem::path& folder : find_selftest_cases(kGoldenFolder)) {
    if (load_gemma_config(folder / "model").image_text == image_text) return folder;
  }
  throw std::runtime_error("no such golden case");
}

// A case in memory: change it, then write it.
struct CaseFiles {
  struct Tensor {
    TensorDtype dtype = TensorDtype::kF32;
    std::vector<int64_t> shape;
    std::vector<char> bytes;

    template <typename T>
    T* values() {
      return reinterpret_cast<T*>(bytes.data());
    }
  };

  explicit CaseFiles(const std::filesystem::path& from = golden_case()) : model(from / "model") {
    const SafetensorsFile file(from / "expected.safetensors");
    for (const TensorInfo& info : file.tensors()) {
      Tensor tensor{info.dtype, info.shape, std::vector<char>(info.bytes())};
      file.read(info, tensor.bytes.data());
      tensors[info.name] = std::move(tensor);
    }
    std::ifstream stream(from / "case.json");
    json = {std::istreambuf_iterator<char>(stream), {}};
  }

  // The folder `name` below `dir`, with a link to the model.
  std::filesystem::path write(const TempDir& dir, const std::string& name = "case") const {
    const std::filesystem::path folder = dir / name;
    std::filesystem::remove_all(folder);
    std::filesystem::create_directories(folder);
    std::filesystem::create_directory_symlink(model, folder / "model");
    dir.write(name + "/case.json", json);
    std::vector<TensorSource> sources;
    for (const auto& [tensor_name, tensor] : tensors) {
      const char* bytes = tensor.bytes.data();
      sources.push_back({tensor_name, tensor.dtype, tensor.shape, [bytes]() -> const void* { return bytes; }});
    }
    write_safetensors(real_file_system(), folder / "expected.safetensors", sources);
    return folder;
  }

  std::filesystem::path model;
  std::string json;
  std::map<std::string, Tensor> tensors;
};

}  // namespace gemma_sft
