#include "trainer/cli/jobs_places.h"

#include <fmt/format.h>

#include "configs/error.h"
#include "configs/load_config.h"
#include "trainer/cli/jobs_service.h"

namespace gemma_sft {
namespace {

bool is_bucket(const std::string& path) { return path.starts_with("gs://"); }

}  // namespace

JobPlaces find_job_places(const TrainArguments& arguments, const TrainRequest& request,
                          const EnvironmentReader& environment) {
  JobPlaces places;
  const std::string& chosen = request.loaded.config.output.run_dir;
  std::optional<std::string> bucket;
  RunConfig local = request.loaded.config;
  if (is_bucket(chosen)) {
    bucket = chosen;
    local.output.run_dir = local_runs_folder(environment).string();
  } else {  // TRAINING_OUTPUT_DIR may stand before an address in the file, which then is still where the service writes
    LoadOptions options;
    options.assignments = arguments.assignments;
    options.dotenv = "";
    options.environment = [&](const std::string& name) -> std::optional<std::string> {
      return name == "TRAINING_OUTPUT_DIR" ? std::nullopt : environment.find(name);
    };
    const std::string of_file = load_config(arguments.config, options).config.output.run_dir;
    if (is_bucket(of_file)) bucket = of_file;
  }
  if (arguments.output && is_bucket(*arguments.output)) {
    throw Error(ErrorKind::kUsage, fmt::format("--output {}: the run folder is on this machine; an address for the "
                                               "service belongs into output.run_dir or --output-dir",
                                               *arguments.output));
  }
  places.local = resolve_run_place(
      local, {.run_id = arguments.run_id, .exact_folder = arguments.output, .resume = request.resume});
  if (bucket) {
    while (bucket->ends_with('/')) bucket->pop_back();
    places.output_uri = fmt::format("{}/run_{}", *bucket, places.local.id);
  }
  return places;
}

}  // namespace gemma_sft
