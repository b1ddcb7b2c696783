#include "model/hand_written_backward.h"

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <algorithm>
#include <utility>

#include "configs/error.h"

namespace gemma_sft {
namespace {

using GradientsFormula = std::function<std::vector<at::Tensor>(const torch::autograd::variable_list& gradients)>;

class FormulaNode : public torch::autograd::Node {
 public:
  explicit FormulaNode(GradientsFormula formula) : formula_(std::move(formula)) {}

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    if (!formula_) throw Error(ErrorKind::kInternal, "backward ran twice through a graph that it had freed");
    const bool any = std::any_of(gradients.begin(), gradients.end(), [](const auto& g) { return g.defined(); });
    if (!any) return torch::autograd::variable_list(num_outputs());
    at::NoGradGuard no_grad;
    return formula_(gradients);
  }

  void release_variables() override { formula_ = nullptr; }

 private:
  GradientsFormula formula_;
};

std::shared_ptr<FormulaNode> make_node(const std::vector<at::Tensor>& inputs, GradientsFormula formula) {
  auto node = std::make_shared<FormulaNode>(std::move(formula));
  torch::autograd::edge_list edges;
  edges.reserve(inputs.size());
  for (const at::Tensor& input : inputs) {
    edges.push_back(input.requires_grad() ? torch::autograd::impl::gradient_edge(input) : torch::autograd::Edge());
  }
  node->set_next_edges(std::move(edges));
  return node;
}

}  // namespace

bool wants_gradient(std::initializer_list<at::Tensor> tensors) {
  if (!c10::GradMode::is_enabled()) return false;
  for (const at::Tensor& tensor : tensors) {
    if (tensor.defined() && tensor.requires_grad()) return true;
  }
  return false;
}

at::Tensor with_backward(at::Tensor output, const std::vector<at::Tensor>& inputs, BackwardFormula formula) {
  torch::autograd::set_history(
      output, make_node(inputs, [formula = std::move(formula)](const torch::autograd::variable_list& gradients) {
        return formula(gradients.at(0));
      }));
  return output;
}

std::pair<at::Tensor, at::Tensor> with_backward_of_two(std::pair<at::Tensor, at::Tensor> outputs,
                                                       const std::vector<at::Tensor>& inputs,
                                                       BackwardFormulaOfTwo formula) {
  const auto node = make_node(inputs, [formula = std::move(formula)](const torch::autograd::variable_list& gradients) {
    return formula(gradients.at(0), gradients.at(1));
  });
  torch::autograd::set_history(outputs.first, node);
  torch::autograd::set_history(outputs.second, node);
  return outputs;
}

}  // namespace gemma_sft
