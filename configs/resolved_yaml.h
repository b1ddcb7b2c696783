// A RunConfig as YAML text: sections and keys in the order of the table (settings.h), the shortest numbers that read
// back the same. The same values always give the same bytes.
#pragma once

#include <string>

#include "configs/run_config.h"

namespace gemma_sft {

// What is written into the run folder; no secrets can be in it. Loading it gives the same RunConfig. Left out are empty
// optionals, keys without effect (lora.* while lora.rank is 0, batch_size beside batch_tokens, ...), and tunix.* values
// from the environment of a run that asked for no job service.
std::string to_yaml(const RunConfig& config);

// As to_yaml, but with only what names a run (Setting::names_run: not output.*, nor what guards a run without changing
// it): the text that the run id is a digest of.
std::string identity_yaml(const RunConfig& config);

}  // namespace gemma_sft
