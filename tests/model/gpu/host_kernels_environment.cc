// Linked into a test program of the model, it sends every CPU tensor of that program through the arithmetic of the
// GPU's kernels (model/gpu/gpu_kernels_host.cc): the tests are the same, their bars are the same.
#include <gtest/gtest.h>

#include <memory>

#include "model/gpu/fused.h"

namespace gemma_sft {
namespace {

class HostKernelsEnvironment : public ::testing::Environment {
 public:
  void SetUp() override { kernels_ = std::make_unique<HostKernels>(); }
  void TearDown() override { kernels_.reset(); }

 private:
  std::unique_ptr<HostKernels> kernels_;
};

const auto* const environment = ::testing::AddGlobalTestEnvironment(new HostKernelsEnvironment);

}  // namespace
}  // namespace gemma_sft
