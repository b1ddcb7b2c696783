#include "trainer/train_setup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "configs/error.h"
#include "tests/trainer/tiny_run.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;

class TrainSetupTest : public ::testing::Test {
 protected:
  std::string refusal(const TrainRequest& request, ErrorKind kind = ErrorKind::kUsage) {
    try {
      prepare_training(request, observer_);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "no error";
    return "";
  }

  TinyRun tiny_;
  RecordingObserver observer_;
};

TEST_F(TrainSetupTest, activations_are_planned_for_the_largest_micro_batch_that_comes) {
  for (const char* packing : {"training.packing=true", "training.packing=false"}) {
    const TrainRequest request = tiny_.request({packing, "training.batch_size=11"});  // all rows at once
    const TrainSetup setup = prepare_training(request, observer_);
    const Gemma model = load_model(setup, request.loaded.config, request.loaded.file);
    BatchStream stream(setup.index, setup.tokenizer, setup.plan.batches);
    int64_t most = 0;
    for (int64_t step = 0; step < setup.plan.total_steps; ++step) {
      for (const PackedBatch& batch : stream.next().micro_batches) most = std::max(most, batch.tokens());
    }
    const LargestMicroBatch largest =
        find_largest_micro_batch(*setup.index, setup.plan.batches, {}, setup.plan.total_steps);
    EXPECT_EQ(activation_need(model, largest).micro_batch_tokens, most);
    const int64_t padded = setup.plan.batches.batch_size * setup.index->longest_tokens;
    if (setup.plan.batches.pack.packing) {
      EXPECT_LT(most, padded);
    } else {
      EXPECT_EQ(most, padded);
    }
  }
}

TEST_F(TrainSetupTest, what_the_result_will_carry_is_looked_at_before_the_training) {
  fs::remove(tiny_.base_model() / "generation_config.json");
  fs::create_symlink("/etc/hostname", tiny_.base_model() / "generation_config.json");
  EXPECT_THAT(refusal(tiny_.request({}), ErrorKind::kModel), HasSubstr("generation_config.json"));
}

TEST_F(TrainSetupTest, a_base_that_asks_by_another_template_than_it_is_taught_by_is_a_warning) {
  tiny_.files().write("base/chat_template.jinja", "<|im_start|>{{ messages }}");
  prepare_training(tiny_.request({}), observer_);
  EXPECT_THAT(observer_.warnings, Contains(HasSubstr("its chat template is not Gemma's")));
}

// By hand, for the tiny model: its matrices in bf16 beside fp32 masters; inputs of dropped layers and masks of a byte.
TEST_F(TrainSetupTest, casts_and_dropped_inputs_count) {
  const auto need_of = [&](std::vector<std::string> sets) {
    sets.push_back("training.max_steps=1");
    const TrainRequest request = tiny_.request(sets);
    const TrainSetup setup = prepare_training(request, observer_);
    const Gemma model = load_model(setup, request.loaded.config, request.loaded.file);
    const LargestMicroBatch largest = find_largest_micro_batch(*setup.index, setup.plan.batches, {}, 1);
    return std::pair(activation_need(model, largest), setup.model_config);
  };
  const auto [fp32, shape] = need_of({"training.precision=fp32"});
  EXPECT_EQ(fp32.more_bytes, 0);
  EXPECT_EQ(fp32.more_bytes_per_token, 0);
  const int64_t block = shape.hidden_size * shape.head_dim * 2 * (shape.num_heads + shape.num_kv_heads) +
                        3 * shape.hidden_size * shape.intermediate_size;
  EXPECT_EQ(need_of({"training.precision=bf16_mixed"}).first.more_bytes, 2 * block);
  EXPECT_EQ(need_of({"training.precision=bf16"}).first.more_bytes, 0);
  const std::vector<std::string> lora = {"training.precision=fp32", "lora.rank=2",
                                         "lora.target_modules=[q_proj, down_proj]"};
  EXPECT_EQ(need_of(lora).first.more_bytes_per_token, 0);
  std::vector<std::string> dropped = lora;
  dropped.push_back("lora.dropout=0.1");
  EXPECT_EQ(need_of(dropped).first.more_bytes_per_token, (shape.hidden_size + shape.intermediate_size) * (4 + 1));
}

// Checkpoints name what a run is made from, in JSON, which has no way to write other bytes.
TEST_F(TrainSetupTest, places_whose_names_are_not_utf_8_are_refused_before_anything_is_read) {
  const fs::path model = tiny_.files() / "mod\xe8le";
  fs::copy(tiny_.base_model(), model);
  fs::create_directory_symlink(model, tiny_.files() / "link");
  EXPECT_THAT(refusal(tiny_.request({"model.base_model=" + (tiny_.files() / "link").string()})),
              AllOf(HasSubstr("model.base_model: "), HasSubstr("mod\\xe8le"), HasSubstr("is not UTF-8"),
                    HasSubstr("rename it")));

  TrainRequest run = tiny_.request();
  run.place.folder = tiny_.files() / "r\xfcn";
  EXPECT_THAT(refusal(run), AllOf(HasSubstr("r\\xfcn"), HasSubstr("--output")));

  const fs::path folder = tiny_.files().write("d\xe9p/beside.jsonl", make_rows(3)).parent_path();
  TrainRequest data = tiny_.request();
  data.loaded.file = (folder / "config.yaml").string();  // relative paths are looked for beside it
  data.loaded.config.dataset.data_path = "beside.jsonl";
  EXPECT_THAT(refusal(data), AllOf(HasSubstr("the training rows: "), HasSubstr("d\\xe9p")));
  data.loaded.config.dataset.data_path = tiny_.data().string();
  data.loaded.config.dataset.validation_path = "beside.jsonl";
  EXPECT_THAT(refusal(data), AllOf(HasSubstr("dataset.validation_path: "), HasSubstr("d\\xe9p")));
}

}  // namespace
}  // namespace gemma_sft
