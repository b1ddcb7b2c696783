#include "trainer/inference_model.h"

#include <gtest/gtest.h>

#include "configs/error.h"
#include "tests/trainer/tiny_run.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

TEST(InferenceModelTest, a_base_that_is_given_is_taken_whatever_the_adapter_says) {
  const TinyRun tiny;
  const fs::path adapter = tiny.files().write("adapter/adapter_config.json", "nonsense").parent_path();
  EXPECT_EQ(find_adapter_base(adapter, tiny.base_model().string()), tiny.base_model());
  EXPECT_THROW(find_adapter_base(adapter, std::nullopt), Error);
}

TEST(InferenceModelTest, a_base_that_no_system_can_name_is_not_found_and_shown_in_part) {
  const TinyRun tiny;
  const std::string name = R"(x\u001b[2J\n)" + std::string(900'000, 'x');
  const fs::path adapter = tiny.files()
                               .write("adapter/adapter_config.json", R"({"base_model_name_or_path": ")" + name + "\"}")
                               .parent_path();
  try {
    find_adapter_base(adapter, std::nullopt);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kModel);
    EXPECT_LT(std::string(error.what()).size(), 1000u);
    EXPECT_EQ(std::string(error.what()).find_first_of("\x1b\n"), std::string::npos);
  }
}

}  // namespace
}  // namespace gemma_sft
