#include "data/files/pickle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// The first bytes of what Python 3.11 and torch 2.11 write: pickle.dumps with each protocol, and torch.save as zip, as
// its older format, and as the tar archive of its first versions.
TEST(Pickle, EveryFormIsRecognisedByItsFirstBytes) {
  std::string tar(300, '\0');
  tar.replace(0, 12, "pickle_mods\0");
  tar.replace(257, 5, "ustar");
  const struct {
    std::string start;
    std::string kind;
  } files[] = {
      {"(dp0\nVa\np1\nI1\ns.", "a pickle"},
      {"(lp0\nI1\na.", "a pickle"},
      {std::string("}q\0X\1\0\0\0aq\1K\1s.", 14), "a pickle"},
      {std::string("]q\0K\1a.", 7), "a pickle"},
      {"ccollections\nOrderedDict\n", "a pickle"},
      {std::string("\x80\x02}q\0X\1", 7), "a pickle"},
      {"\x80\x02\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19.", "a pickle"},
      {std::string("\x80\x03}q\0", 5), "a pickle"},
      {std::string("\x80\x04\x95\x0a\0\0\0", 7), "a pickle"},
      {std::string("\x80\x05\x95\x0a\0\0\0", 7), "a pickle"},
      {std::string("PK\x03\x04\0\0\x08\x08", 8), "a zip archive, as torch.save writes"},
      {std::string("PK\x05\x06\0\0", 6), "a zip archive, as torch.save writes"},
      {tar, "a tar archive, as old versions of torch.save write"},
  };
  for (const auto& file : files) {
    const std::string text = recognise_pickle(file.start);
    EXPECT_THAT(text, StartsWith("this is " + file.kind + "; such files can run code when they are loaded"));
    EXPECT_THAT(text, HasSubstr("Convert it: python3 -c \"import sys, torch; from safetensors.torch import save_file"));
  }
}

TEST(Pickle, WhatIsNoneIsNotTakenForOne) {
  for (const std::string& start :
       {std::string(), std::string("\x80"), std::string("\x80\x01"), std::string("\x80\x06"), std::string("PK"),
        std::string("{\"a\":1}"), std::string("[1,2]"), std::string("(x)"), std::string("\x0a\x0c\x0a\x05<pad>"),
        std::string("8\0\0\0\0\0\0\0{\"a\":", 14), std::string("model:\n  base_model: x\n"), std::string("c")}) {
    EXPECT_EQ(recognise_pickle(start), "") << start;
  }
}

TEST(Pickle, FilesAreLookedAtByContentAndNotByName) {
  const TempDir dir;
  EXPECT_THAT(recognise_pickle_file(dir.write("model.safetensors", "\x80\x02}q")), StartsWith("this is a pickle"));
  EXPECT_EQ(recognise_pickle_file(dir.write("model.pt", "{}")), "");
  EXPECT_EQ(recognise_pickle_file(dir / "absent.pt"), "");
  EXPECT_EQ(recognise_pickle_file(dir.path()), "");
}

}  // namespace
}  // namespace gemma_sft
