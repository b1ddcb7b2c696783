#include "trainer/training_failure.h"

#include <ATen/ops/empty.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <stdexcept>
#include <system_error>

#include "configs/error.h"
#include "trainer/allocation_failure.h"

namespace gemma_sft {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string message_of(const WorkPlace& place, const std::function<void()>& work) {
  try {
    with_memory_errors_explained(place, work);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kOutOfMemory);
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

PackedBatch batch() {
  PackedBatch two;
  two.input_ids.resize(30);
  two.document_offsets = {0, 10, 30};
  two.document_lengths = {10, 20};
  two.row_ids = {"a", "b"};
  two.row_lines = {3, 9};
  two.file = "data/train.jsonl";
  return two;
}

TEST(TrainingFailureTest, a_tensor_that_does_not_fit_is_explained_with_place_batch_amount_and_remedies) {
  const PackedBatch two = batch();
  const int64_t bytes = int64_t{1} << 60;
  const std::string message = message_of({"forward and backward pass", 17, &two},
                                         [&] { at::empty({bytes}, at::TensorOptions().dtype(at::kByte)); });
  EXPECT_THAT(
      message,
      AllOf(
          HasSubstr("forward and backward pass, step 17"),
          HasSubstr("micro-batch of 2 examples with 30 tokens, the longest of 20 tokens at data/train.jsonl:9 (id b)"),
          HasSubstr("tried to allocate 1152921504606846976 bytes")));
  EXPECT_THAT(
      message,
      AllOf(HasSubstr("training.batch_size (16 -> 8 -> 4)"), HasSubstr("training.gradient_accumulation_steps: 4"),
            HasSubstr("larger accelerator (tpu-v3-8 -> tpu-v3-32"), HasSubstr("Checkpoints saved so far are intact.")));
}

TEST(TrainingFailureTest, other_commands_have_remedies_of_their_own) {
  EXPECT_THAT(
      message_of({.phase = "generation", .remedy = "Lower --max-new-tokens."}, [] { throw std::bad_alloc(); }),
      AllOf(HasSubstr(
                "(generation): tried to allocate an unknown amount (Cannot allocate memory). Lower --max-new-tokens."),
            Not(HasSubstr("training.")), Not(HasSubstr("Checkpoints"))));
}

TEST(TrainingFailureTest, the_standard_library_s_failure_counts_too) {
  EXPECT_THAT(message_of({"loading the model"}, [] { throw std::bad_alloc(); }), HasSubstr("(loading the model)"));
}

TEST(TrainingFailureTest, where_the_failure_tells_how_much_was_asked_the_message_does) {
  EXPECT_THAT(message_of({"reading the data"}, [] { throw AllocationFailure(123456); }),
              HasSubstr("(reading the data): tried to allocate 123456 bytes."));
}

TEST(TrainingFailureTest, what_libraries_say_instead_is_understood) {
  EXPECT_THAT(message_of({"x"}, [] { throw std::runtime_error("could not create a primitive"); }),
              HasSubstr("tried to allocate an unknown amount (could not create a primitive)"));
  EXPECT_THAT(
      message_of({"x"},
                 [] { throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again)); }),
      HasSubstr("tried to allocate the stack of a thread, unless it is a limit of threads that was reached"));
  EXPECT_THAT(message_of({"x"},
                         [] {
                           throw std::filesystem::filesystem_error("open", "folder",
                                                                   std::make_error_code(std::errc::not_enough_memory));
                         }),
              HasSubstr("tried to allocate an unknown amount (Cannot allocate memory)"));
}

TEST(TrainingFailureTest, other_failures_pass_through) {
  EXPECT_THROW(with_memory_errors_explained({"x"}, [] { throw Error(ErrorKind::kData, "out of memory, says a row"); }),
               Error);
  EXPECT_THROW(with_memory_errors_explained(
                   {"x"}, [] { throw std::system_error(std::make_error_code(std::errc::permission_denied)); }),
               std::system_error);
  EXPECT_THROW(with_memory_errors_explained({"x"}, [] { throw std::runtime_error("other"); }), std::runtime_error);
  EXPECT_THROW(with_memory_errors_explained({"x"}, [] { TORCH_CHECK(false, "shapes differ"); }), c10::Error);
  int calls = 0;
  with_memory_errors_explained({"x"}, [&] { ++calls; });
  EXPECT_EQ(calls, 1);
}

TEST(TrainingFailureTest, rows_are_named_by_file_line_and_id_and_long_lists_are_cut) {
  EXPECT_EQ(describe_rows({batch()}), "data/train.jsonl:3 (id a), data/train.jsonl:9 (id b)");
  const std::string many = describe_rows(std::vector<PackedBatch>(15, batch()));
  EXPECT_THAT(many, HasSubstr("(id b) and 10 more"));
}

TEST(TrainingFailureTest, an_id_forges_no_line_and_makes_no_endless_message) {
  PackedBatch two = batch();
  two.row_ids = {"a\x1b[2J\n✅ Training finished\x9b", std::string(900'000, 'b')};
  const std::string rows = describe_rows({two});
  EXPECT_THAT(rows, HasSubstr("(id a\\u001b[2J\\n✅ Training finished\\x9b)"));
  EXPECT_LT(rows.size(), 1000u);
  const std::string message = message_of({"forward and backward pass", 17, &two}, [] { throw std::bad_alloc(); });
  EXPECT_THAT(message, HasSubstr("data/train.jsonl:9 (id bbb"));
  EXPECT_LT(message.size(), 2000u);
}

}  // namespace
}  // namespace gemma_sft
