// The commands that the front end answers itself, without LibTorch; each gives the exit code or throws Error.
#pragma once

#include "trainer/cli/command_line.h"
#include "trainer/cli/output.h"

namespace gemma_sft {

int run_config_schema(const Output& output);
int run_config_show(const ConfigShowArguments& arguments, const Output& output);
int run_config_explain(const ConfigExplainArguments& arguments, const Output& output);

int run_explain(const ExplainArguments& arguments, const Output& output);
int run_tokenize(const TokenizeArguments& arguments, const Output& output);
int run_tokenizer_train(const TokenizerTrainArguments& arguments, const Output& output);
int run_model_init(const ModelInitArguments& arguments, const Output& output);
int run_verify(const VerifyArguments& arguments, const Output& output);

}  // namespace gemma_sft
