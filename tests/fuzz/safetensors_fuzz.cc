// A safetensors file. What is accepted must be safe to use without a further check: tensors tile the file exactly.
#include <vector>

#include "data/files/safetensors.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gemma_sft;
  const auto path = write_scratch("model.safetensors", text_of(data, size));
  accepts([&] {
    const SafetensorsFile file(path);
    uint64_t at = 0;
    for (const TensorInfo& info : file.tensors()) {
      uint64_t elements = 1;
      for (const int64_t extent : info.shape) elements *= static_cast<uint64_t>(extent);
      if (info.begin != at || info.bytes() != elements * bytes_per_element(info.dtype)) {
        report_bug("tensor " + info.name + " is not where it should be");
      }
      at = info.end;
      if (at > size) report_bug("tensor " + info.name + " ends behind the file");
      std::vector<char> bytes(info.bytes());
      file.read(info, bytes.data());
      if (file.find(info.name) != &info) report_bug("tensor " + info.name + " is not found by its name");
    }
  });
  return 0;
}
