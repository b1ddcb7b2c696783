#include "data/files/sha256.h"

#include <gtest/gtest.h>

#include "configs/error.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

// The examples of FIPS 180-4's companion document (NIST, "SHA256", and the million-times-a vector).
constexpr char kOfNothing[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr char kOfAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr char kOfMillionA[] = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

TEST(Sha256, GivesThePublishedDigests) {
  EXPECT_EQ(sha256_hex(""), kOfNothing);
  EXPECT_EQ(sha256_hex("abc"), kOfAbc);
  EXPECT_EQ(sha256_hex(std::string(1'000'000, 'a')), kOfMillionA);
}

TEST(Sha256, OfBlocksIsThatOfTheWhole) {
  Sha256 digest;
  for (int i = 0; i < 1000; ++i) digest.update(std::string(1000, 'a').data(), 1000);
  digest.update("", 0);
  EXPECT_EQ(digest.hex(), kOfMillionA);
}

TEST(Sha256, OfAFileIsThatOfItsBytes) {
  const TempDir dir;
  EXPECT_EQ(sha256_file(dir.write("empty", "")), kOfNothing);
  EXPECT_EQ(sha256_file(dir.write("abc", "abc")), kOfAbc);
  const std::string large(3'000'001, 'z');  // more than one block
  EXPECT_EQ(sha256_file(dir.write("large", large)), sha256_hex(large));
  EXPECT_THROW(sha256_file(dir / "absent"), Error);
  EXPECT_THROW(sha256_file(dir.path()), Error);
}

}  // namespace
}  // namespace gemma_sft
