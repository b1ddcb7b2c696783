// The words behind a command -> its arguments. `program` as in CommandParser.
#pragma once

#include <string>
#include <vector>

#include "trainer/cli/command_line.h"

namespace gemma_sft {

using Words = std::vector<std::string>;

// parse_train.cc
CommandLine parse_train(const std::string& program, const Words& rest);
CommandLine parse_explain(const std::string& program, const Words& rest);
CommandLine parse_config_show(const std::string& program, const Words& rest);
CommandLine parse_config_explain(const std::string& program, const Words& rest);
CommandLine parse_config_schema(const std::string& program, const Words& rest);

// parse_generate.cc
CommandLine parse_generate(const std::string& program, const Words& rest);
CommandLine parse_eval(const std::string& program, const Words& rest);
CommandLine parse_eval_generate(const std::string& program, const Words& rest);

// parse_folders.cc
CommandLine parse_model_init(const std::string& program, const Words& rest);
CommandLine parse_tokenizer_train(const std::string& program, const Words& rest);
CommandLine parse_tokenize(const std::string& program, const Words& rest);
CommandLine parse_export(const std::string& program, const Words& rest);
CommandLine parse_verify(const std::string& program, const Words& rest);
CommandLine parse_selftest(const std::string& program, const Words& rest);
CommandLine parse_traces_export(const std::string& program, const Words& rest);

// parse_jobs.cc
CommandLine parse_jobs_list(const std::string& program, const Words& rest);
CommandLine parse_jobs_show(const std::string& program, const Words& rest);
CommandLine parse_jobs_watch(const std::string& program, const Words& rest);
CommandLine parse_jobs_cancel(const std::string& program, const Words& rest);
CommandLine parse_jobs_download(const std::string& program, const Words& rest);
CommandLine parse_jobs_estimate(const std::string& program, const Words& rest);
CommandLine parse_preflight(const std::string& program, const Words& rest);
CommandLine parse_auth_test(const std::string& program, const Words& rest);
CommandLine parse_quota(const std::string& program, const Words& rest);

}  // namespace gemma_sft
