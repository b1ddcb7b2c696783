// model.safetensors.index.json beside two shards ("a.safetensors" with x and y, "b.safetensors" with z).
#include <string>

#include "model/weight_files.h"
#include "tests/fuzz/fuzz_input.h"

namespace gemma_sft {
namespace {

std::string shard(const std::string& header, size_t data_bytes) {
  std::string file(8, '\0');
  file[0] = static_cast<char>(header.size());
  return file + header + std::string(data_bytes, '\0');
}

bool write_shards() {
  write_scratch("model/a.safetensors", shard(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                                             R"("y":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})",
                                             12));
  write_scratch("model/b.safetensors", shard(R"({"z":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}})", 4));
  return true;
}

}  // namespace
}  // namespace gemma_sft

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gemma_sft;
  static const bool written = write_shards();
  const auto path = write_scratch("model/model.safetensors.index.json", text_of(data, size));
  if (written && accepts([&] { files_dtype(path.parent_path()); })) {
    // Accepted: then it names exactly the tensors that are there.
    if (text_of(data, size).find("weight_map") == std::string_view::npos) report_bug("accepted without a weight_map");
  }
  return 0;
}
