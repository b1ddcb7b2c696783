// What of a configuration a job cannot do: refused before anything is read or sent, or told. google-tunix trains on the
// other side, and its runner refuses the same (gateway/runner/job_spec.py), only later.
#pragma once

#include <string>
#include <vector>

#include "configs/run_config.h"

namespace gemma_sft {

// Throws Error(kUsage) with every setting that would give another model than a run on this machine, and a remedy each.
void require_job_settings(const RunConfig& config);

// Settings that a job takes otherwise, or not at all, and that change no number of its model: sentences.
std::vector<std::string> job_settings_warnings(const RunConfig& config);

}  // namespace gemma_sft
