#include "configs/nearest_key.h"

#include <gtest/gtest.h>

#include "configs/settings.h"

namespace gemma_sft {
namespace {

TEST(NearestKey, DistancesCountEditsAndSwaps) {
  EXPECT_EQ(edit_distance("", ""), 0);
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("batch", "bacth"), 1);
  EXPECT_EQ(edit_distance("ca", "abc"), 3);
  EXPECT_EQ(edit_distance("same", "same"), 0);
}

TEST(NearestKey, FindsTheKeyThatWasMeant) {
  const std::pair<const char*, const char*> cases[] = {
      {"training.bacth_size", "training.batch_size"},
      {"training.learning-rate", "training.learning_rate"},
      {"training.Learning_Rate", "training.learning_rate"},
      {"training.epochs", "training.num_epochs"},
      {"batch_size", "training.batch_size"},
      {"learning_rate", "training.learning_rate"},
      {"training.base_model", "model.base_model"},
      {"model.data_path", "dataset.data_path"},
      {"lora.ranl", "lora.rank"},
      {"tunix_job_config.region", "model.tunix_job_config.region"},
      {"output.checkpoints_every", "output.checkpoint_every"},
      {"trainning.seed", "training.seed"},
  };
  for (const auto& [written, meant] : cases) {
    const Nearest nearest = nearest_key(written, setting_keys());
    EXPECT_EQ(nearest.name, meant) << written;
    EXPECT_TRUE(nearest.close) << written;
  }
}

TEST(NearestKey, AFarKeyStillHasANearestButIsNotAskedFor) {
  const Nearest nearest = nearest_key("zzzzzzzz", setting_keys());
  EXPECT_FALSE(nearest.name.empty());
  EXPECT_FALSE(nearest.close);
  EXPECT_TRUE(nearest_key("x", {}).name.empty());
}

TEST(NearestKey, AHugeKeyTakesNoLongerThanAShortOne) {
  EXPECT_FALSE(nearest_key(std::string(200000, 'x'), setting_keys()).close);
}

TEST(NearestKey, FindsWords) {
  EXPECT_EQ(nearest_word("cosin", {"linear", "cosine", "constant"}).name, "cosine");
  EXPECT_TRUE(nearest_word("cosin", {"linear", "cosine", "constant"}).close);
  EXPECT_FALSE(nearest_word("polynomial", {"linear", "cosine"}).close);
}

}  // namespace
}  // namespace gemma_sft
