#include "model/attention.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/model/counting_allocator.h"
#include "tests/model/tiny_models.h"

namespace gemma_sft {
namespace {

at::Tensor random(at::IntArrayRef sizes, uint64_t seed) {
  return at::empty(sizes, at::TensorOptions().dtype(at::kFloat))
      .normal_(0, 1, at::Generator(at::detail::createCPUGenerator(seed)));
}

DeviceBatch batch_of(const std::vector<int64_t>& lengths, int64_t padded_length) {
  DeviceBatch batch;
  batch.document_offsets = {0};
  for (const int64_t length : lengths) {
    batch.document_offsets.push_back(batch.document_offsets.back() + (padded_length > 0 ? padded_length : length));
  }
  batch.document_lengths = lengths;
  batch.padded_length = padded_length;
  batch.input_ids = at::empty({batch.document_offsets.back()}, at::TensorOptions().dtype(at::kLong));
  return batch;
}

// The textbook formula, document by document, all scores at once, in fp64 through LibTorch's autograd.
at::Tensor textbook(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const DeviceBatch& batch,
                    const AttentionOptions& options) {
  const int64_t repeat = query.size(1) / key.size(1);
  std::vector<at::Tensor> outputs;
  for (size_t d = 0; d < batch.document_lengths.size(); ++d) {
    const int64_t first = batch.document_offsets[d], length = batch.document_lengths[d];
    if (length == 0) continue;
    const auto heads = [&](const at::Tensor& x, int64_t times) {
      return x.narrow(0, first, length).to(at::kDouble).transpose(0, 1).repeat_interleave(times, 0);
    };
    at::Tensor scores = at::matmul(heads(query, 1), heads(key, repeat).transpose(1, 2)).mul(options.scale);
    if (options.softcap) scores = scores.div(*options.softcap).tanh().mul(*options.softcap);
    const at::Tensor row = at::arange(length).unsqueeze(1), column = at::arange(length).unsqueeze(0);
    at::Tensor hidden = column.gt(row);
    if (options.window > 0) hidden = hidden.logical_or(column.le(row.sub(options.window)));
    scores = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity());
    outputs.push_back(at::matmul(scores.softmax(-1), heads(value, repeat)).transpose(0, 1).reshape({length, -1}));
  }
  return at::cat(outputs);
}

at::Tensor real_rows(const at::Tensor& x, const DeviceBatch& batch) {
  std::vector<at::Tensor> parts;
  for (size_t d = 0; d < batch.document_lengths.size(); ++d) {
    parts.push_back(x.narrow(0, batch.document_offsets[d], batch.document_lengths[d]));
  }
  return at::cat(parts);
}

struct Case {
  const char* name;
  std::vector<int64_t> lengths;
  int64_t heads, kv_heads;
  AttentionOptions options;
};

// fp64 has no kernels: it goes through LibTorch's operators, as a soft-cap or a window on a GPU does.
enum class Way { kPacked, kPadded, kOperators };

class Attention : public ::testing::TestWithParam<std::tuple<Case, Way>> {};

TEST_P(Attention, EqualsTheTextbookForwardAndBackward) {
  const auto& [given, way] = GetParam();
  int64_t longest = 0;
  for (const int64_t length : given.lengths) longest = std::max(longest, length);
  const DeviceBatch batch = batch_of(given.lengths, way == Way::kPadded ? longest : 0);
  const int64_t tokens = batch.input_ids.size(0);
  std::vector<at::Tensor> inputs = {random({tokens, given.heads, 16}, 1), random({tokens, given.kv_heads, 16}, 2),
                                    random({tokens, given.kv_heads, 16}, 3)};
  for (at::Tensor& input : inputs) {
    input = (way == Way::kOperators ? input.to(at::kDouble) : input).requires_grad_(true);
  }
  const at::Tensor weights = random({tokens, given.heads * 16}, 4);

  const at::Tensor ours = attend(inputs[0], inputs[1], inputs[2], lay_out_documents(batch), given.options);
  // The places past a document's end must be finite; they are not part of anything else.
  EXPECT_TRUE(ours.isfinite().all().item<bool>());
  const at::Tensor expected = textbook(inputs[0], inputs[1], inputs[2], batch, given.options);
  EXPECT_LE(largest_difference(real_rows(ours, batch), expected), 3e-6);

  std::vector<at::Tensor> our_gradients;
  real_rows(ours.mul(weights), batch).sum().backward();
  for (at::Tensor& input : inputs) {
    our_gradients.push_back(input.grad());
    input.mutable_grad().reset();
  }
  expected.mul(real_rows(weights, batch)).sum().backward();
  for (size_t i = 0; i < inputs.size(); ++i) {
    // With a window of one key the gradients of query and key are zero: an absolute bound there.
    const double scale = std::max(1.0, inputs[i].grad().abs().max().item<double>());
    EXPECT_LE(largest_difference(our_gradients[i], inputs[i].grad()), 5e-6 * scale) << i;
  }
}

const std::vector<int64_t> kRagged = {40, 3, 38, 1, 21, 40, 12};

INSTANTIATE_TEST_SUITE_P(
    Cases, Attention,
    ::testing::Combine(
        ::testing::Values(Case{"global", kRagged, 4, 4, {.scale = 0.3}}, Case{"grouped", kRagged, 6, 2, {.scale = 0.3}},
                          Case{"multi_query", kRagged, 4, 1, {.scale = 0.2}},
                          Case{"window", kRagged, 4, 2, {.scale = 0.3, .window = 7}},
                          Case{"window_1", kRagged, 2, 2, {.scale = 0.3, .window = 1}},
                          Case{"window_as_long_as_the_longest", kRagged, 2, 2, {.scale = 0.3, .window = 40}},
                          Case{"softcap", kRagged, 4, 2, {.scale = 0.5, .softcap = 1.5}},
                          Case{"softcap_and_window", kRagged, 4, 1, {.scale = 0.5, .softcap = 1.5, .window = 5}},
                          Case{"several_blocks", {300, 290, 130}, 2, 1, {.scale = 0.3, .softcap = 2.0, .window = 150}},
                          Case{"several_blocks_global", {300, 290, 130}, 2, 1, {.scale = 0.3}},
                          Case{"equal_lengths", {16, 16, 16}, 4, 2, {.scale = 0.3}},
                          Case{"one_document", {64}, 4, 2, {.scale = 0.3, .window = 20}}),
        ::testing::Values(Way::kPacked, Way::kPadded, Way::kOperators)),
    [](const auto& given) {
      const Way way = std::get<1>(given.param);
      return std::string(std::get<0>(given.param).name) + (way == Way::kPacked   ? "_packed"
                                                           : way == Way::kPadded ? "_padded"
                                                                                 : "_operators");
    });

TEST(DocumentLayout, KeepsRowsWhereTheyAreWhenNothingIsToBeMoved) {
  for (const DocumentLayout& layout :
       {lay_out_documents(batch_of({8, 8, 8}, 0)), lay_out_documents(batch_of({5, 8}, 8))}) {
    EXPECT_FALSE(layout.places.defined());
    ASSERT_EQ(layout.groups.size(), 1u);
    EXPECT_EQ(layout.groups[0].length, 8);
  }
}

TEST(DocumentLayout, WastesLessThanAThirdAndLosesNoToken) {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < 200; ++i) lengths.push_back(1 + (i * 37) % 500);
  const DeviceBatch batch = batch_of(lengths, 0);
  const DocumentLayout layout = lay_out_documents(batch);
  const int64_t tokens = batch.input_ids.size(0);
  EXPECT_LT(layout.rows, tokens * 4 / 3);
  int64_t documents = 0, rows = 0;
  for (const auto& group : layout.groups) {
    documents += group.documents;
    rows += group.documents * group.length;
  }
  EXPECT_EQ(documents, 200);
  EXPECT_EQ(rows, layout.rows);
  const at::Tensor sorted = std::get<0>(layout.places.sort());
  EXPECT_TRUE(sorted.narrow(0, 1, tokens - 1).gt(sorted.narrow(0, 0, tokens - 1)).all().item<bool>());
  EXPECT_LT(sorted.max().item<int64_t>(), layout.rows);
}

// Twice the tokens, twice the memory: no scores of tokens x tokens, with and without a window, forward and backward.
TEST(Attention, MemoryGrowsLinearly) {
  for (const AttentionOptions& options :
       {AttentionOptions{.scale = 0.1, .softcap = 50.0, .window = 256}, AttentionOptions{.scale = 0.1},
        AttentionOptions{.scale = 0.1, .window = 256}}) {
    CountingAllocator memory;
    std::vector<int64_t> peaks;
    for (const int64_t tokens : {2048, 4096}) {
      const DocumentLayout layout = lay_out_documents(batch_of({tokens}, 0));
      const at::Tensor query = random({tokens, 2, 32}, 1).requires_grad_(true);
      const at::Tensor key = random({tokens, 1, 32}, 2), value = random({tokens, 1, 32}, 3);
      const int64_t before = memory.held();
      memory.reset_peak();
      attend(query, key, value, layout, options).sum().backward();
      peaks.push_back(memory.peak() - before);
    }
    EXPECT_LT(peaks[1], peaks[0] * 22 / 10);
    EXPECT_LT(peaks[1], 4096LL * 4096 * 4);  // one head's scores
  }
}

}  // namespace
}  // namespace gemma_sft
