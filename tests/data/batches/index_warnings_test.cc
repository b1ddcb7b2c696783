#include "data/batches/index_warnings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gemma_sft {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(IndexWarnings, SayEverythingThatIsNotTrainedOnAsItStands) {
  DatasetIndex index;
  index.file = "a.jsonl";
  EXPECT_THAT(index_warnings(index), IsEmpty());
  index.skipped_rows = 2;
  index.skipped = {{{"a.jsonl", 3}, 1, "row", "a.jsonl:3:1: row: bad"}};
  index.truncated = {1, 2, 3, 4, 5, 6};
  index.unread_fields = {{"system", 4}, {"weight", 1}};
  index.control_text = {7};
  const std::string skipped = "a.jsonl: 2 rows skipped (the first: a.jsonl:3:1: row: bad)";
  EXPECT_THAT(index_warnings(index),
              ElementsAre(skipped,
                          "a.jsonl: 6 rows cut to model.max_seq_length, 0 of them in their targets: a.jsonl:1, "
                          "a.jsonl:2, a.jsonl:3, a.jsonl:4, a.jsonl:5, ...",
                          "a.jsonl: fields that dataset.format: training_example does not read, so that nothing in "
                          "them is trained on: system (4 rows), weight (1 rows)",
                          "a.jsonl: 1 rows spell a control token such as <start_of_turn> in their text: a.jsonl:7"));
  index.truncated_targets = {5};
  EXPECT_EQ(index_warnings(index)[1],
            "a.jsonl: 6 rows cut to model.max_seq_length, 1 of them in their targets: a.jsonl:5");
  EXPECT_EQ(index_warnings(index, "list.jsonl")[0], skipped + "; list.jsonl in the run folder lists them");
}

}  // namespace
}  // namespace gemma_sft
