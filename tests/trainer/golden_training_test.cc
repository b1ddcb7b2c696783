// Every case below tests/golden: twenty steps of transformers' Trainer, on all weights and, through peft, on an
// adapter; what the merged model computes; greedy text past the window.
#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "model/adapter_config.h"
#include "model/device_batch.h"
#include "model/weights.h"
#include "tests/model/golden_case.h"
#include "tests/testing/temp_dir.h"
#include "trainer/generator.h"
#include "trainer/optimizer.h"
#include "trainer/schedule.h"
#include "trainer/train_step.h"

namespace gemma_sft {
namespace {

// What transformers' names for settings mean here.
TrainingSection training_section(const nlohmann::json& settings) {
  TrainingSection training;
  training.max_steps = settings.at("steps").get<int64_t>();
  training.batch_size = settings.at("rows");
  training.gradient_accumulation_steps = settings.at("accumulation");
  training.learning_rate = settings.at("learning_rate");
  const auto kind = settings.at("lr_scheduler_type").get<std::string>();
  training.lr_scheduler = kind == "linear" ? Scheduler::kLinear : Scheduler::kCosine;
  if (kind == "cosine_with_min_lr") training.min_lr_ratio = settings.at("lr_scheduler_kwargs").at("min_lr_rate");
  training.warmup_steps = settings.at("warmup_steps").get<int64_t>();
  training.weight_decay = settings.at("weight_decay");
  training.adam_beta1 = settings.at("adam_beta1");
  training.adam_beta2 = settings.at("adam_beta2");
  training.adam_epsilon = settings.at("adam_epsilon");
  training.max_grad_norm = settings.at("max_grad_norm");
  return training;
}

struct Errors {
  double loss_abs = 0, grad_norm_rel = 0, rate_rel = 0, weights_abs = 0;
  std::string worst_weight;
};

// Trains the model on `rows` and compares each step and the final weights with `run`.
Errors train_and_compare(Gemma& model, const nlohmann::json& settings, const NamedTensors& rows,
                         const NamedTensors& run, const NamedTensors& final_weights, Layout layout) {
  const TrainingSection training = training_section(settings);
  const Schedule schedule{.kind = training.lr_scheduler,
                          .peak = training.learning_rate,
                          .min_ratio = training.min_lr_ratio,
                          .warmup_steps = *training.warmup_steps,
                          .total_steps = *training.max_steps};
  Optimizer optimizer(model.trainable_parameters(), optimizer_options(training));
  TrainStep train_step(model, optimizer, {.max_grad_norm = training.max_grad_norm});
  Errors errors;
  const auto value = [&](const char* name, int64_t step) { return run.at(name).const_data_ptr<double>()[step]; };
  int64_t row = 0;
  for (int64_t step = 0; step < *training.max_steps; ++step) {
    std::vector<PackedBatch> batches;
    for (int64_t micro = 0; micro < training.gradient_accumulation_steps; ++micro) {
      batches.push_back(make_batch(rows, row, row + training.batch_size, layout));
      row += training.batch_size;
      train_step.accumulate(batches.back(), step + 1);
    }
    const double rate = schedule.rate(step);
    const StepStats stats = train_step.apply(rate, batches, step + 1);
    errors.loss_abs = larger_error(errors.loss_abs, std::abs(stats.loss - value("losses", step)));
    errors.grad_norm_rel =
        larger_error(errors.grad_norm_rel, std::abs(stats.grad_norm / value("grad_norms", step) - 1.0));
    errors.rate_rel = larger_error(errors.rate_rel, std::abs(rate - value("rates", step)) / training.learning_rate);
  }
  EXPECT_EQ(row, rows.at("lengths").size(0));
  EXPECT_EQ(model.trainable_parameters().size(), final_weights.size());
  for (const Parameter& parameter : model.trainable_parameters()) {
    const double error =
        parameter.tensor.detach().to(at::kCPU).sub(final_weights.at(parameter.name)).abs().max().item<double>();
    errors.weights_abs = larger_error(errors.weights_abs, error);
    if (errors.weights_abs == error || std::isnan(error)) errors.worst_weight = parameter.name;
  }
  return errors;
}

void expect_within(const Errors& errors, const nlohmann::json& tolerances, const std::string& prefix) {
  EXPECT_LE(errors.loss_abs, tolerances.at("loss_abs"));
  EXPECT_LE(errors.grad_norm_rel, tolerances.at("grad_norm_rel"));
  EXPECT_LE(errors.rate_rel, 1e-12);
  EXPECT_LE(errors.weights_abs, tolerances.at("weights_abs")) << errors.worst_weight;
  const auto record = [&](const char* what, double error) {
    ::testing::Test::RecordProperty(prefix + what, std::to_string(error * 1e6) + "e-6");
  };
  record("loss_abs", errors.loss_abs);
  record("grad_norm_rel", errors.grad_norm_rel);
  record("weights_abs", errors.weights_abs);
}

class GoldenTraining : public ::testing::TestWithParam<std::string> {
 protected:
  std::string name_ = GetParam();
  nlohmann::json case_ = read_golden_json(name_);
  NamedTensors rows_ = read_tensors(golden_folder(name_) / "training.safetensors");
};

TEST_P(GoldenTraining, TwentyStepsEqualTheReference) {
  for (const Layout layout : {Layout::kPacked, Layout::kPadded}) {
    Gemma model = load_golden_model(name_);
    const Errors errors = train_and_compare(model, case_.at("training").at("settings"), rows_, rows_,
                                            tensors_of_model(rows_, "final."), layout);
    expect_within(errors, case_.at("training").at("tolerances"), layout == Layout::kPacked ? "packed_" : "padded_");
  }
}

TEST_P(GoldenTraining, TwentyStepsOfAnAdapterAndItsMergedModelEqualTheReference) {
  const auto& facts = case_.at("lora");
  const std::filesystem::path adapter = golden_folder(name_) / "adapter";
  const NamedTensors run = read_tensors(golden_folder(name_) / "lora.safetensors");
  NamedTensors final_weights;
  for (const auto& [name, tensor] : tensors_of_model(run, "final.base_model.model.")) {
    final_weights["base_model.model." + name] = tensor;
  }
  Gemma model = load_golden_model(name_);
  add_adapter(model, adapter);
  expect_within(train_and_compare(model, facts.at("settings"), rows_, run, final_weights, Layout::kPacked),
                facts.at("tolerances"), "");

  const TempDir merged_folder;
  export_model(model, golden_folder(name_) / "model", merged_folder.path(), real_file_system(),
               {.dtype = ModelDtype::kFp32, .merge_lora = true});
  GemmaOptions options;
  options.device = test_device();
  Gemma merged = load_gemma(merged_folder.path(), options);
  const c10::NoGradGuard no_grad;
  const PackedBatch batch = make_batch(read_tensors(golden_folder(name_) / "expected.safetensors"), Layout::kPacked);
  const at::Tensor of_merged = merged.logits(merged.forward(to_device(batch, test_device()))).to(at::kCPU);
  const at::Tensor of_adapter = model.logits(model.forward(to_device(batch, test_device()))).to(at::kCPU);
  const double error = largest_error(of_merged, run.at("merged_logits"), batch);
  EXPECT_LE(error, facts.at("tolerances").at("merged_logits_abs"));
  EXPECT_LE(of_merged.sub(of_adapter).abs().max().item<double>(), 1e-4);
  RecordProperty("merged_logits_abs", std::to_string(error * 1e6) + "e-6");
  RecordProperty("merged_against_adapter",
                 std::to_string(of_merged.sub(of_adapter).abs().max().item<double>() * 1e6) + "e-6");
}

TEST_P(GoldenTraining, GreedyTextPastTheWindowIsTheReferences) {
  Gemma model = load_golden_model(name_);
  for (const auto& continuation : case_.at("greedy")) {
    const auto expected = continuation.at("output").get<std::vector<int64_t>>();
    EXPECT_EQ(expected.size(), 64u);
    EXPECT_GE(continuation.at("least_gap"), 1e-3);
    Sampler sampler({});
    EXPECT_EQ(generate_tokens(model, continuation.at("prompt").get<std::vector<int64_t>>(),
                              {.max_new_tokens = static_cast<int64_t>(expected.size())}, sampler),
              expected);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenTraining, ::testing::ValuesIn(golden_case_names()),
                         [](const auto& parameters) { return test_name(parameters.param); });

}  // namespace
}  // namespace gemma_sft
