#include "data/files/pickle.h"

#include <algorithm>
#include <array>

#include "configs/error.h"
#include "data/files/input_file.h"

namespace gemma_sft {
namespace {

// Protocols 0 and 1 have no magic number: what Python writes first for a dictionary, a list, a tuple, or an object of
// the modules that models are made of.
constexpr std::array<std::string_view, 11> kOldStarts = {
    "(dp", "(lp", "(tp", "}q", "]q", "(]q", "ccollections\n", "cnumpy", "ctorch", "c__builtin__\n", "ccopy_reg\n"};
constexpr size_t kTarMagicByte = 257;

std::string kind_of(std::string_view start) {
  if (start.starts_with("PK\x03\x04") || start.starts_with("PK\x05\x06")) return "a zip archive, as torch.save writes";
  if (start.size() > 1 && start[0] == '\x80' && start[1] >= 2 && start[1] <= 5) return "a pickle";
  if (std::any_of(kOldStarts.begin(), kOldStarts.end(), [&](auto old) { return start.starts_with(old); })) {
    return "a pickle";
  }
  if (start.size() > kTarMagicByte && start.substr(kTarMagicByte).starts_with("ustar")) {
    return "a tar archive, as old versions of torch.save write";
  }
  return "";
}

}  // namespace

std::string recognise_pickle(std::string_view start) {
  const std::string kind = kind_of(start);
  if (kind.empty()) return "";
  return "this is " + kind +
         "; such files can run code when they are loaded and are never read here. Convert it: python3 -c \"import "
         "sys, torch; from safetensors.torch import save_file; save_file({k: v.clone().contiguous() for k, v in "
         "torch.load(sys.argv[1], map_location='cpu', weights_only=True).items()}, sys.argv[2], {'format': 'pt'})\" "
         "IN.bin OUT.safetensors";
}

std::string recognise_pickle_file(const std::filesystem::path& path) {
  try {
    const InputFile file(path);
    std::string start(kPickleStartBytes, '\0');
    start.resize(file.read_some(0, start.data(), start.size()));
    return recognise_pickle(start);
  } catch (const Error&) {
    return "";
  }
}

}  // namespace gemma_sft
