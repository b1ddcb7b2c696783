#include "trainer/checkpoint/checkpointer.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "configs/error.h"
#include "data/files/safetensors.h"
#include "tests/testing/failing_file_system.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/run_tensors.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class CheckpointerTest : public ::testing::Test {
 protected:
  // A model that took one step with random gradients.
  struct Trained {
    explicit Trained(const TinyRun& tiny, bool step, int64_t lora_rank = 0) : model(load_tiny_model(tiny)) {
      if (lora_rank > 0) model.add_lora({.rank = lora_rank, .target_modules = {"q_proj"}}, 1);
      optimizer.emplace(model.trainable_parameters(), OptimizerOptions{});
      if (!step) return;
      for (const Parameter& parameter : optimizer->parameters()) {
        at::Tensor(parameter.tensor).mutable_grad() = at::rand(parameter.tensor.sizes());
      }
      optimizer->step(1e-2, at::ones({}), at::zeros({}), 1);
    }
    Gemma model;
    std::optional<Optimizer> optimizer;
  };
  CheckpointerTest() : folders_(tiny_.files().path(), "r", 2, real_file_system()) {
    origin_.config.model.base_model = tiny_.base_model().string();
    origin_.config.dataset.data_path = tiny_.data().string();
    origin_.model_folder = tiny_.base_model().string();
    at::manual_seed(5);
  }
  fs::path save(Trained& from, int64_t step = 3) {
    return Checkpointer(folders_, origin_, real_file_system())
        .save({.step = step}, run_tensors(from.model, *from.optimizer));
  }
  void restore(Trained& into, const fs::path& checkpoint) {
    restore_checkpoint(checkpoint, into.model, *into.optimizer);
  }

  TinyRun tiny_;
  RunOrigin origin_;
  CheckpointFolders folders_;
};

TEST_F(CheckpointerTest, weights_moments_steps_and_random_state_come_back_bit_by_bit) {
  for (int64_t rank : {0, 2}) {
    Trained one(tiny_, true, rank), two(tiny_, false, rank);
    const fs::path checkpoint = save(one, 3 + rank);
    const at::Tensor drawn = at::rand({8});
    at::manual_seed(99);
    restore(two, checkpoint);
    EXPECT_TRUE(at::rand({8}).equal(drawn));
    const auto a = one.optimizer->moments(), b = two.optimizer->moments();
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_TRUE(a[i].exp_avg.equal(b[i].exp_avg));
      EXPECT_TRUE(a[i].exp_avg_sq.equal(b[i].exp_avg_sq));
      EXPECT_TRUE(a[i].step.equal(b[i].step));
      EXPECT_TRUE(one.optimizer->parameters()[i].tensor.equal(two.optimizer->parameters()[i].tensor));
    }
  }
}

TEST_F(CheckpointerTest, the_same_state_gives_the_same_bytes) {
  Trained one(tiny_, true);
  const CheckpointManifest first = *verify_checkpoint(save(one)).manifest;
  at::manual_seed(5);
  at::rand({1});
  EXPECT_NE(verify_checkpoint(save(one)).manifest->files.at("random.safetensors"),
            first.files.at("random.safetensors"));
  EXPECT_EQ(verify_checkpoint(save(one)).manifest->files.at("model.safetensors"), first.files.at("model.safetensors"));
}

TEST_F(CheckpointerTest, tensors_of_another_model_are_refused) {
  Trained one(tiny_, true), lora(tiny_, false, 2);
  EXPECT_THROW(restore(lora, save(one)), Error);
  Trained two_ranks(tiny_, true, 2), four_ranks(tiny_, false, 4);
  try {
    restore(four_ranks, save(two_ranks, 4));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCheckpoint);
    EXPECT_THAT(error.what(), HasSubstr("another shape"));
  }
}

TEST_F(CheckpointerTest, bytes_that_are_no_random_state_are_refused) {
  Trained one(tiny_, true);
  const fs::path checkpoint = save(one);
  const fs::path file = checkpoint / "random.safetensors";
  const SafetensorsFile saved(file);
  const TensorInfo cpu = *saved.find("cpu");
  const std::vector<uint8_t> junk(cpu.bytes(), 0xff);
  write_safetensors(real_file_system(), file, {{"cpu", cpu.dtype, cpu.shape, [&] { return junk.data(); }}});
  try {
    restore(one, checkpoint);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCheckpoint);
    EXPECT_THAT(error.what(), HasSubstr("holds no state of a random number generator"));
  }
}

TEST_F(CheckpointerTest, room_for_everything_is_asked_for_before_the_first_byte) {
  Trained one(tiny_, true);
  FailingFileSystem watched;
  CheckpointFolders folders(tiny_.files().path(), "r", 2, watched);
  Checkpointer(folders, origin_, watched).save({.step = 1}, run_tensors(one.model, *one.optimizer));
  uint64_t written = 0;
  for (const FileCallRecord& call : watched.calls()) written += call.call == FileCall::kAppend ? call.bytes : 0;
  const auto first = std::find_if(watched.calls().begin(), watched.calls().end(), [](const FileCallRecord& call) {
    return call.call == FileCall::kRequireSpace || call.call == FileCall::kAppend;
  });
  EXPECT_EQ(first->call, FileCall::kRequireSpace);
  EXPECT_GE(first->bytes, written);
}

TEST_F(CheckpointerTest, every_failing_call_is_an_error_that_keeps_the_checkpoint_before) {
  Trained one(tiny_, true);
  save(one, 1);
  int failures = 0;
  for (int64_t call = 0;; ++call, ++failures) {
    FailingFileSystem failing({.call = call, .kind = FaultKind::kOnce, .error_number = 5});
    CheckpointFolders folders(tiny_.files().path(), "r", 2, failing);
    try {
      Checkpointer(folders, origin_, failing).save({.step = 2}, run_tensors(one.model, *one.optimizer));
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kIo);
      EXPECT_TRUE(verify_checkpoint(tiny_.files() / "checkpoint-1").manifest);
      continue;
    }
    EXPECT_FALSE(failing.has_failed()) << "call " << call << " failed and nobody said so";
    break;
  }
  EXPECT_GT(failures, 20);
}

}  // namespace
}  // namespace gemma_sft
