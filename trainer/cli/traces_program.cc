// gemma-sft-traces: what gemma-sft becomes where rows are to be read from PostgreSQL. `traces export` writes them where
// it is told to; `train` writes those of its manifest beside the manifest and then is gemma-sft again.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <variant>
#include <vector>

#include "configs/environment.h"
#include "configs/error.h"
#include "data/files/file_system.h"
#include "data/traces/postgres_traces.h"
#include "data/traces/trace_export.h"
#include "trainer/cli/program.h"
#include "trainer/cli/row_writer.h"
#include "trainer/cli/start_engine.h"
#include "trainer/cli/train_request.h"
#include "trainer/run/utf8_json.h"

namespace gemma_sft {
namespace {

enum class MissingTraces { kFail, kSkip };

std::string some_of(const std::vector<std::string>& ids) {
  constexpr size_t kMostNamed = 5;
  std::string names;
  for (size_t i = 0; i < std::min(ids.size(), kMostNamed); ++i) names += (i == 0 ? "" : ", ") + ids[i];
  return names + (ids.size() > kMostNamed ? ", ..." : "");
}

PostgresTraces connect() {
  const auto address = EnvironmentReader().find("DATABASE_URL");
  if (!address) {
    throw Error(
        ErrorKind::kUsage,
        "DATABASE_URL is not set; give the address of the database with the traces in the environment or in .env");
  }
  return PostgresTraces(*address);
}

// Gives the number of rows in `file`, which appears when all of them are there.
int64_t export_traces(const Manifest& manifest, DataFormat format, MissingTraces missing_traces,
                      const std::string& file, const Output& output) {
  if (manifest.trace_ids.empty()) {
    throw Error(ErrorKind::kData,
                fmt::format("{}: trace_ids: empty; there is nothing to read from a database", manifest.path.string()));
  }
  PostgresTraces traces = connect();
  output.note(fmt::format("reading {} traces from {}", manifest.trace_ids.size(), traces.name()));
  RowWriter rows(file, output, real_file_system());
  int64_t count = 0;
  const std::vector<std::string> missing = traces.read(manifest.trace_ids, [&](StoredTrace&& trace) {
    rows.write(export_trace(trace, format) + "\n");
    ++count;
  });
  if (!missing.empty()) {
    const std::string what =
        fmt::format("{} of the {} traces of {} are not in {}: {}", missing.size(), manifest.trace_ids.size(),
                    manifest.path.string(), traces.name(), some_of(missing));
    if (missing_traces == MissingTraces::kFail) {
      throw Error(ErrorKind::kData,
                  what +
                      "; build the data set anew, or write what is there to a file with gemma-sft traces export "
                      "--skip-missing and give it with --data");
    }
    output.warn(what);
  }
  rows.finish();
  return count;
}

void export_rows_of_run(const TrainArguments& arguments, const Output& output) {
  const LoadedConfig loaded = make_train_request(arguments).loaded;
  const DatasetPlaces dataset = find_dataset(loaded);
  if (!comes_from_database(loaded, dataset)) return;  // another process was faster
  const DataFormat format = loaded.config.dataset.format;
  const std::string file = exported_rows_path(*dataset.manifest, format).string();
  try {
    const int64_t rows = export_traces(*dataset.manifest, format, MissingTraces::kFail, file, output);
    output.note(fmt::format("{} rows written to {}; later runs of this data set use the file", rows, file));
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kIo) throw;
    throw Error(ErrorKind::kIo,
                fmt::format("{}\nwhere the manifest's folder cannot be written to, export the rows "
                            "elsewhere: gemma-sft traces export --manifest {} --format {} --output FILE, "
                            "then train with --data FILE",
                            error.what(), dataset.manifest->path.string(), format_name(format)));
  }
}

struct TracesProgram {
  const std::vector<std::string>& words;
  const Output& output;

  int operator()(const TrainArguments& arguments) const {
    export_rows_of_run(arguments, output);
    start_front_end(words);
  }
  int operator()(const TracesExportArguments& arguments) const {
    const Manifest manifest = load_manifest(arguments.manifest, arguments.manifest);
    for (const std::string& warning : manifest.warnings) output.warn(warning);
    RowWriter::require_place(arguments.output);
    const int64_t rows =
        export_traces(manifest, arguments.format, arguments.skip_missing ? MissingTraces::kSkip : MissingTraces::kFail,
                      arguments.output, output);
    output.status(fmt::format("Dataset exported: {} rows, {}", rows, arguments.output));
    if (output.json()) {
      const nlohmann::ordered_json json = {
          {"manifest", arguments.manifest}, {"output", arguments.output}, {"rows", rows}};
      output.print(utf8_json(json) + "\n");
    }
    return 0;
  }
  template <typename Other>
  int operator()(const Other&) const {
    throw Error(ErrorKind::kUsage, "gemma-sft-traces is started by gemma-sft; type gemma-sft --help");
  }
};

}  // namespace
}  // namespace gemma_sft

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  return gemma_sft::run_program(argc, argv, [&](const gemma_sft::CommandLine& line, const gemma_sft::Output& output) {
    return std::visit(gemma_sft::TracesProgram{words, output}, line.arguments);
  });
}
