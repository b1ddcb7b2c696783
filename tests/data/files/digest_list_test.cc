#include "data/files/digest_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/error.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

const std::string kDigest(64, '0');

std::string refusal(const TempDir& dir, const std::string& text) {
  dir.write(kDigestListName, text);
  try {
    find_digest_list(dir.path());
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kModel);
    return error.what();
  }
  return "no error";
}

TEST(DigestList, IsReadAsItWasWritten) {
  const TempDir dir;
  const std::map<std::string, std::string> digests = {{"a b", kDigest}, {"ä.json", kDigest}};
  write_digest_list(real_file_system(), dir.path(), digests);
  EXPECT_EQ(find_digest_list(dir.path()), digests);
}

TEST(DigestList, LinesMayEndAsOnWindows) {
  const TempDir dir;
  dir.write(kDigestListName, kDigest + "  a\r\n" + kDigest + " *b\r\n");
  EXPECT_EQ(find_digest_list(dir.path()), (std::map<std::string, std::string>{{"a", kDigest}, {"b", kDigest}}));
}

TEST(DigestList, NamesThatSteerATerminalOrHaveNoEndAreRefused) {
  const TempDir dir;
  for (const char* name : {"a\x1b[2J", "a\rb", "a\tb", "a\x7f", "a\xc2\x9b", "a\x9b"}) {
    EXPECT_THAT(refusal(dir, kDigest + "  good\n" + kDigest + "  " + name + "\n"),
                AllOf(HasSubstr("SHA256SUMS:2: \"a"), HasSubstr("without control characters"), Not(HasSubstr(name))));
  }
  EXPECT_LT(refusal(dir, kDigest + "  " + std::string(900'000, 'x') + "\n").size(), 1000u);
  EXPECT_EQ(refusal(dir, kDigest + "  " + std::string(255, 'x') + "\n"), "no error");
}

}  // namespace
}  // namespace gemma_sft
