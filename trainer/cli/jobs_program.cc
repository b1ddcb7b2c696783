// gemma-sft-jobs: what gemma-sft becomes for the commands that speak to a job service. The only program that
// speaks HTTP; no LibTorch.
#include <csignal>
#include <variant>

#include "configs/error.h"
#include "trainer/cli/jobs_commands.h"
#include "trainer/cli/program.h"
#include "trainer/stop_signal.h"
#include "trainer/tunix/job_client.h"

namespace gemma_sft {
namespace {

struct JobsProgram {
  const Output& output;

  int operator()(const TrainArguments& arguments) const { return run_tunix_train(arguments, output); }
  int operator()(const JobsArguments& arguments) const { return run_jobs(arguments, output); }
  int operator()(const EvalGenerateArguments& arguments) const { return run_eval_generate_job(arguments, output); }
  template <typename Other>
  int operator()(const Other&) const {
    throw Error(ErrorKind::kUsage, "gemma-sft-jobs is started by gemma-sft; type gemma-sft --help");
  }
};

}  // namespace
}  // namespace gemma_sft

int main(int argc, char** argv) {
  using gemma_sft::CommandLine;
  using gemma_sft::Output;
  return gemma_sft::run_program(argc, argv, [](const CommandLine& line, const Output& output) {
    gemma_sft::install_stop_signals();
    try {
      return std::visit(gemma_sft::JobsProgram{output}, line.arguments);
    } catch (const gemma_sft::Interrupted&) {
      const int signal = gemma_sft::stop_signal();
      return 128 + (signal != 0 ? signal : SIGINT);
    } catch (const gemma_sft::StopRequested&) {  // while the steps of a run were counted
      return 128 + gemma_sft::stop_signal();
    }
  });
}
