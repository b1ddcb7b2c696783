#include "data/batches/packer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/error.h"

namespace gemma_sft {
namespace {

using testing::ElementsAre;

const std::vector<TokenizedExample> kExamples = {
    {"a", {2, 10, 11, 12}, {0, 0, 1, 1}}, {"b", {2, 20}, {0, 1}}, {"c", {2, 30, 31}, {0, 1, 0}}};

TEST(Packer, JoinsDocumentsWithoutPadding) {
  const PackedBatch batch = pack(kExamples, {1, 5, 9}, "rows.jsonl", {.packing = true, .pad_id = 7});
  EXPECT_THAT(batch.input_ids, ElementsAre(2, 10, 11, 12, 2, 20, 2, 30, 31));
  EXPECT_THAT(batch.targets, ElementsAre(-1, 11, 12, -1, 20, -1, 30, -1, -1));
  EXPECT_THAT(batch.positions, ElementsAre(0, 1, 2, 3, 0, 1, 0, 1, 2));
  EXPECT_THAT(batch.document_offsets, ElementsAre(0, 4, 6, 9));
  EXPECT_THAT(batch.document_lengths, ElementsAre(4, 2, 3));
  EXPECT_EQ(batch.padded_length, 0);
  EXPECT_EQ(batch.target_tokens, 4);
  EXPECT_EQ(batch.real_tokens, 9);
  EXPECT_EQ(batch.tokens(), 9);
  EXPECT_EQ(batch.documents(), 3);
  EXPECT_THAT(batch.row_ids, ElementsAre("a", "b", "c"));
  EXPECT_THAT(batch.row_lines, ElementsAre(1, 5, 9));
  EXPECT_EQ(batch.file, "rows.jsonl");
}

TEST(Packer, PadsOnTheRightToTheLongest) {
  const PackedBatch batch = pack(kExamples, {1, 5, 9}, "rows.jsonl", {.packing = false, .pad_id = 7});
  EXPECT_THAT(batch.input_ids, ElementsAre(2, 10, 11, 12, 2, 20, 7, 7, 2, 30, 31, 7));
  EXPECT_THAT(batch.targets, ElementsAre(-1, 11, 12, -1, 20, -1, -1, -1, 30, -1, -1, -1));
  EXPECT_THAT(batch.positions, ElementsAre(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3));
  EXPECT_THAT(batch.document_offsets, ElementsAre(0, 4, 8, 12));
  EXPECT_THAT(batch.document_lengths, ElementsAre(4, 2, 3));
  EXPECT_EQ(batch.padded_length, 4);
  EXPECT_EQ(batch.target_tokens, 4);
  EXPECT_EQ(batch.real_tokens, 9);
}

// The pad id is a real row of the vocabulary: where a text holds it, it is trained like any other token.
TEST(Packer, MasksByLengthAndNotByThePadId) {
  const PackedBatch batch = pack({{"a", {2, 0, 0}, {0, 1, 1}}, {"b", {2, 5, 6, 7}, {0, 0, 0, 1}}}, {1, 2}, "f",
                                 {.packing = false, .pad_id = 0});
  EXPECT_THAT(batch.targets, ElementsAre(0, 0, -1, -1, -1, -1, 7, -1));
  EXPECT_EQ(batch.target_tokens, 3);
}

TEST(Packer, RefusesWhatIsNoBatch) {
  EXPECT_THROW(pack({}, {}, "f", {}), Error);
  EXPECT_THROW(pack(kExamples, {1, 2}, "f", {}), Error);
  EXPECT_THROW(pack({{"a", {1, 2}, {0}}}, {1}, "f", {}), Error);
  EXPECT_THROW(pack({{"a", {}, {}}}, {1}, "f", {}), Error);
}

}  // namespace
}  // namespace gemma_sft
