#include "configs/load_config.h"
#include "configs/settings_text.h"
#include "trainer/cli/front_end_commands.h"

namespace gemma_sft {

int run_config_schema(const Output& output) {
  output.print(schema_json());
  return 0;
}

int run_config_show(const ConfigShowArguments& arguments, const Output& output) {
  LoadOptions options;
  options.assignments = arguments.assignments;
  const LoadedConfig loaded = load_config(arguments.config, options);
  output.print(output.json() ? show_config_json(loaded) : show_config(loaded));
  for (const std::string& warning : loaded.warnings) output.warn(warning);
  return 0;
}

int run_config_explain(const ConfigExplainArguments& arguments, const Output& output) {
  output.print(output.json() ? explain_key_json(arguments.key) : explain_key(arguments.key));
  return 0;
}

}  // namespace gemma_sft
