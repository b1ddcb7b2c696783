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

}  // namespace
}  // namespace gemma_sft
