#include "model/activation_checkpoint.h"

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>

#include <utility>

#include "model/hand_written_backward.h"

namespace gemma_sft {
namespace {

at::Tensor generator_state(at::Device device) { return at::globalContext().defaultGenerator(device).get_state(); }

// Puts the default generator of a device into an earlier state for as long as it lives.
class ReplayedRandomNumbers {
 public:
  ReplayedRandomNumbers(at::Device device, const at::Tensor& state)
      : generator_(at::globalContext().defaultGenerator(device)), present_(generator_.get_state()) {
    generator_.set_state(state);
  }
  ~ReplayedRandomNumbers() { generator_.set_state(present_); }
  ReplayedRandomNumbers(const ReplayedRandomNumbers&) = delete;
  ReplayedRandomNumbers& operator=(const ReplayedRandomNumbers&) = delete;

 private:
  at::Generator generator_;
  at::Tensor present_;
};

}  // namespace

at::Tensor checkpointed(const at::Tensor& x, const std::function<at::Tensor(const at::Tensor&)>& block,
                        bool draws_random_numbers) {
  if (!c10::GradMode::is_enabled()) return block(x);
  const at::Tensor random_state = draws_random_numbers ? generator_state(x.device()) : at::Tensor();
  at::NoGradGuard no_grad;
  at::Tensor output = block(x);
  // x may need no gradient (a frozen embedding) while the block's own leaves do, so the node is made in any case.
  return with_backward(output, {x},
                       [x = x.detach(), x_wanted = x.requires_grad(), block,
                        random_state](const at::Tensor& gradient) -> std::vector<at::Tensor> {
                         at::AutoGradMode with_grad(true);
                         const at::Tensor input = x.detach().requires_grad_(x_wanted);
                         at::Tensor again;
                         if (random_state.defined()) {
                           const ReplayedRandomNumbers replay(x.device(), random_state);
                           again = block(input);
                         } else {
                           again = block(input);
                         }
                         if (again.requires_grad()) again.backward(gradient);
                         return {input.grad()};
                       });
}

}  // namespace gemma_sft
