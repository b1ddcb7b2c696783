#include "trainer/tunix/job_settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "configs/error.h"
#include "trainer/tunix/job_spec.h"

namespace gemma_sft {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string refusal_of(const RunConfig& config) {
  try {
    require_job_settings(config);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    return error.what();
  }
  return "";
}

const std::vector<std::pair<const char*, std::function<void(RunConfig&)>>> kRefused = {
    {"lora.dropout: 0.1: ",
     [](RunConfig& config) {
       config.lora.rank = 4;
       config.lora.dropout = 0.1;
     }},
    {"lora.init_from: runs/adapter: ",
     [](RunConfig& config) {
       config.lora.rank = 4;
       config.lora.init_from = "runs/adapter";
     }},
    {"training.stochastic_rounding: ",
     [](RunConfig& config) {
       config.training.precision = Precision::kBf16;
       config.training.stochastic_rounding = true;
     }},
    {"evaluation.keep_best: ", [](RunConfig& config) { config.evaluation.keep_best = true; }},
    {"evaluation.early_stopping_patience: 2: ",
     [](RunConfig& config) { config.evaluation.early_stopping_patience = 2; }},
};

TEST(JobSettings, WhatNoJobCanHonourIsRefusedByNameWithARemedy) {
  RunConfig all;
  for (const auto& [named, change] : kRefused) {
    RunConfig config;
    change(config);
    change(all);
    const std::string refusal = refusal_of(config);
    EXPECT_THAT(refusal, testing::StartsWith(named));
    EXPECT_THAT(refusal, HasSubstr("or train on this machine with --backend native"));
    EXPECT_THROW(make_job_spec({.config = config,
                                .run_id = "r",
                                .output_uri = {},
                                .max_seq_length = 0,
                                .dataset_id = "",
                                .submission = "",
                                .config_sha256 = "",
                                .client_version = "1"}),
                 Error)
        << named;
  }
  for (const auto& [named, change] : kRefused) EXPECT_THAT(refusal_of(all), HasSubstr(named));
}

TEST(JobSettings, WithoutLoraItsSettingsAreNobodysBusiness) {
  RunConfig config;
  config.lora.dropout = 0.5;
  config.lora.init_from = "runs/adapter";
  EXPECT_EQ(refusal_of(config), "");
  EXPECT_THAT(job_settings_warnings(config), IsEmpty());
}

TEST(JobSettings, WhatChangesNoNumberIsTold) {
  RunConfig config;
  config.dataset.validation_fraction = 0.1;
  config.training.activation_checkpointing = ActivationCheckpointing::kAuto;
  config.training.step_timeout = 60;
  EXPECT_EQ(refusal_of(config), "");
  EXPECT_THAT(job_settings_warnings(config),
              ElementsAre(HasSubstr("without evaluation"), HasSubstr("activation_checkpointing: auto"),
                          HasSubstr("tunix.timeout_seconds")));
}

}  // namespace
}  // namespace gemma_sft
