#include "data/files/sha256.h"

#include <openssl/evp.h>

#include <vector>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "data/files/input_file.h"

namespace gemma_sft {
namespace {

constexpr size_t kBlockBytes = 1 << 20;

void require_success(int result) {
  if (result != 1) throw Error(ErrorKind::kInternal, "OpenSSL refused to compute SHA-256");
}

}  // namespace

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  require_success(state_->context != nullptr && EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr));
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::update(const void* bytes, size_t size) { require_success(EVP_DigestUpdate(state_->context, bytes, size)); }

std::string Sha256::hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  require_success(EVP_DigestFinal_ex(state_->context, digest, &size));
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (unsigned int i = 0; i < size; ++i) {
    text += kDigits[digest[i] >> 4];
    text += kDigits[digest[i] & 15];
  }
  return text;
}

std::string sha256_hex(std::string_view bytes) {
  Sha256 digest;
  digest.update(bytes.data(), bytes.size());
  return digest.hex();
}

std::string sha256_file(const std::filesystem::path& path, const std::function<void()>& before_block) {
  const InputFile file(path);
  Sha256 digest;
  std::vector<char> block(kBlockBytes);
  uint64_t offset = 0;
  for (;;) {
    if (before_block) before_block();
    const size_t count = file.read_some(offset, block.data(), block.size());
    if (count == 0) break;
    digest.update(block.data(), count);
    offset += count;
  }
  return digest.hex();
}

}  // namespace gemma_sft
