#include "model/hand_written_backward.h"

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <utility>

#include "configs/error.h"

namespace gemma_sft {
namespace {

class FormulaNode : public torch::autograd::Node {
 public:
  explicit FormulaNode(BackwardFormula formula) : formula_(std::move(formula)) {}

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    if (!formula_) throw Error(ErrorKind::kInternal, "backward ran twice through a graph that it had freed");
    if (!gradients.at(0).defined()) return torch::autograd::variable_list(num_outputs());
    at::NoGradGuard no_grad;
    return formula_(gradients[0]);
  }

  void release_variables() override { formula_ = nullptr; }

 private:
  BackwardFormula formula_;
};

}  // namespace

bool wants_gradient(std::initializer_list<at::Tensor> tensors) {
  if (!c10::GradMode::is_enabled()) return false;
  for (const at::Tensor& tensor : tensors) {
    if (tensor.defined() && tensor.requires_grad()) return true;
  }
  return false;
}

at::Tensor with_backward(at::Tensor output, const std::vector<at::Tensor>& inputs, BackwardFormula formula) {
  auto node = std::make_shared<FormulaNode>(std::move(formula));
  torch::autograd::edge_list edges;
  edges.reserve(inputs.size());
  for (const at::Tensor& input : inputs) {
    edges.push_back(input.requires_grad() ? torch::autograd::impl::gradient_edge(input) : torch::autograd::Edge());
  }
  node->set_next_edges(std::move(edges));
  torch::autograd::set_history(output, node);
  return output;
}

}  // namespace gemma_sft
