// What `gemma-sft config` prints and README.md holds, all made from the table in settings.h and the lists in aliases.h
// and environment.h. Every function gives a complete text that ends in a newline.
#pragma once

#include <string>

#include "configs/load_config.h"

namespace gemma_sft {

// JSON Schema (draft 2020-12) of the configuration file, in the present spelling of the keys.
std::string schema_json();

// Everything about one key: type, range, default, help, source; for an alias, what it means here; for a section, its
// keys. Throws Error(kUsage) with the nearest known key when there is no such key.
std::string explain_key(const std::string& key);
std::string explain_key_json(const std::string& key);

// Key, value and origin of every setting. Values hold no secrets, because load_config accepts none.
std::string show_config(const LoadedConfig& loaded);
std::string show_config_json(const LoadedConfig& loaded);

// Markdown tables for README.md.
std::string settings_markdown();
std::string aliases_markdown();
std::string environment_markdown();

}  // namespace gemma_sft
