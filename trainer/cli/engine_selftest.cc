#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "trainer/cli/engine_commands.h"
#include "trainer/run_selftest.h"
#include "trainer/stop_signal.h"

namespace gemma_sft {
namespace {

constexpr int kBeyondTolerance = 15;  // the exit code that says just this

std::string describe(const SelftestResult& result, const SelftestTolerances& tolerances) {
  const auto pair = [](double error, double tolerance) {
    return fmt::format("{:.2e} {} {:.2e}", error, error <= tolerance ? "<=" : ">", tolerance);
  };
  return fmt::format("{}: logits {}, loss {}, gradients {} ({})", result.name,
                     pair(result.logits_max_abs_err, tolerances.logits_abs),
                     pair(result.loss_abs_err, tolerances.loss_abs), pair(result.grad_max_rel_err, tolerances.grad_rel),
                     result.worst_grad);
}

}  // namespace

int run_selftest_command(const SelftestArguments& arguments, const Output& output) {
  const std::vector<std::filesystem::path> folders = arguments.case_folder
                                                         ? std::vector<std::filesystem::path>{*arguments.case_folder}
                                                         : find_selftest_cases(shipped_selftest_folder());
  std::string rows;
  size_t failed = 0;
  for (const std::filesystem::path& folder : folders) {
    const SelftestCase reference = read_selftest_case(folder);
    const SelftestResult result = run_selftest(reference, arguments.device);
    if (stop_signal() != 0) return report_stop(output, "selftest in " + folder.string());
    if (!reference.without_gradient.empty()) {
      output.note(fmt::format("{}: the case has gradients for {} weights and none for {}: {}{}", result.name,
                              reference.gradients.size(), reference.without_gradient.size(),
                              reference.without_gradient.front(), reference.without_gradient.size() > 1 ? " ..." : ""));
    }
    rows += (rows.empty() ? "" : ",") + to_json(result);
    failed += result.ok ? 0 : 1;
    if (result.ok) {
      output.status(describe(result, reference.tolerances));
    } else {
      output.complain("beyond the tolerance: " + describe(result, reference.tolerances));
    }
  }
  if (output.json()) {
    output.print(arguments.case_folder ? rows + "\n"
                                       : fmt::format("{{\"cases\":[{}],\"ok\":{}}}\n", rows, failed == 0));
  }
  if (!arguments.case_folder && failed == 0)
    output.status(fmt::format("All {} cases within tolerance", folders.size()));
  return failed == 0 ? 0 : kBeyondTolerance;
}

}  // namespace gemma_sft
