#include "trainer/generator.h"

#include <ATen/ops/argmax.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "configs/error.h"
#include "trainer/stop_signal.h"

namespace gemma_sft {
namespace {

struct Candidate {
  int64_t id = 0;
  double weight = 0;  // proportional to its probability
};

// The `most` most probable ones in order, or all for 0; ties by id, so that the order does not depend on the sorting.
std::vector<Candidate> rank_candidates(const at::Tensor& logits, double temperature, int64_t most) {
  const at::Tensor values = logits.to(at::kCPU, at::kDouble).contiguous();
  const double* value = values.const_data_ptr<double>();
  const int64_t count = values.numel();
  const double top = *std::max_element(value, value + count);
  std::vector<Candidate> candidates(static_cast<size_t>(count));
  for (int64_t id = 0; id < count; ++id) {
    candidates[static_cast<size_t>(id)] = {id, std::exp((value[id] - top) / temperature)};
  }
  const auto is_before = [](const Candidate& a, const Candidate& b) {
    return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
  };
  if (most > 0 && most < count) {  // a few of a quarter of a million tokens: the others need no order
    std::partial_sort(candidates.begin(), candidates.begin() + most, candidates.end(), is_before);
    candidates.resize(static_cast<size_t>(most));
  } else {
    std::sort(candidates.begin(), candidates.end(), is_before);
  }
  return candidates;
}

double total_weight(const std::vector<Candidate>& candidates) {
  return std::accumulate(candidates.begin(), candidates.end(), 0.0,
                         [](double sum, const Candidate& candidate) { return sum + candidate.weight; });
}

void keep_top_p(std::vector<Candidate>& candidates, double top_p) {
  const double wanted = top_p * total_weight(candidates);
  double sum = 0;
  size_t kept = 0;
  while (kept < candidates.size() && (kept == 0 || sum < wanted)) sum += candidates[kept++].weight;
  candidates.resize(kept);
}

}  // namespace

Sampler::Sampler(const SamplingOptions& options) : options_(options), random_(options.seed) {}

int64_t Sampler::choose(const at::Tensor& logits) {
  const int64_t best = logits.argmax().item<int64_t>();
  // argmax gives the place of a NaN where there is one.
  if (!std::isfinite(logits.select(0, best).item<double>())) {
    throw Error(ErrorKind::kNonFinite, "generation: the logits are not finite; the model's weights are broken");
  }
  if (options_.temperature <= 0) return best;
  std::vector<Candidate> candidates = rank_candidates(logits, options_.temperature, options_.top_k);
  if (options_.top_p < 1) keep_top_p(candidates, options_.top_p);
  // 53 random bits as a number in [0, 1): the standard's distributions differ between libraries.
  double left = static_cast<double>(random_() >> 11) * 0x1.0p-53 * total_weight(candidates);
  for (const Candidate& candidate : candidates) {
    left -= candidate.weight;
    if (left < 0) return candidate.id;
  }
  return candidates.back().id;
}

std::vector<int64_t> generate_tokens(Gemma& model, const std::vector<int64_t>& prompt, const GenerationLimits& limits,
                                     Sampler& sampler) {
  if (prompt.empty()) throw Error(ErrorKind::kData, "generation: the prompt has no token");
  const c10::NoGradGuard no_grad;
  KvCache cache;
  std::vector<int64_t> output;
  std::vector<int64_t> next = prompt;
  while (static_cast<int64_t>(output.size()) < limits.max_new_tokens && stop_signal() == 0) {
    const int64_t token = sampler.choose(model.decode(next, cache));
    output.push_back(token);
    if (std::find(limits.stop_ids.begin(), limits.stop_ids.end(), token) != limits.stop_ids.end()) break;
    next = {token};
  }
  return output;
}

}  // namespace gemma_sft
