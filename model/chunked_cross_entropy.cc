#include "model/chunked_cross_entropy.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "configs/error.h"
#include "model/cpu_rows.h"
#include "model/gpu/fused.h"
#include "model/hand_written_backward.h"
#include "model/matrix_product.h"

namespace gemma_sft {
namespace {

constexpr int64_t kChunkBytesCpu = int64_t{512} << 20;
// Each chunk adds once to the head's fp32 gradient: 2,048 tokens of bf16 logits at a time, where Gemma has 256,000
// pieces, keep that traffic well below the time of the three products.
constexpr int64_t kChunkBytesCuda = kLossChunkBytes;
// The fp32 work on bf16 or soft-capped logits takes this part of a chunk at a time.
constexpr int64_t kPartsOfAChunk = 16;
// Rows of the head's gradient that are made and added at a time, so that the product to be added stays in the cache.
constexpr int64_t kVocabularyBlock = 2048;

int64_t rows_per_chunk(const at::Tensor& weight, at::ScalarType dtype, const CrossEntropyOptions& options) {
  if (options.chunk_tokens > 0) return options.chunk_tokens;
  const int64_t bytes = weight.is_cuda() ? kChunkBytesCuda : kChunkBytesCpu;
  return std::max<int64_t>(1, bytes / (weight.size(0) * static_cast<int64_t>(c10::elementSize(dtype))));
}

// logits [rows, vocab] fp32 -> their gradient softmax(logits) - onehot(targets), in place. Gives the sum of the losses.
at::Tensor softmax_in_place(at::Tensor& logits, const at::Tensor& targets, bool gradient_wanted) {
  const at::Tensor columns = targets.unsqueeze(1);
  logits.sub_(logits.amax({1}, /*keepdim=*/true));
  const at::Tensor picked = logits.gather(1, columns);
  logits.exp_();
  const at::Tensor sums = logits.sum({1}, /*keepdim=*/true);
  if (gradient_wanted) {
    logits.div_(sums);
    logits.scatter_add_(1, columns, at::empty(columns.sizes(), logits.options()).fill_(-1.0));
  }
  return sums.log().sub_(picked).sum(at::kDouble);
}

// By the kernels for the CPU, one row after the other.
at::Tensor rows_to_gradient(at::Tensor& logits, const at::Tensor& targets, std::optional<double> softcap,
                            bool gradient_wanted) {
  const int64_t rows = logits.size(0), vocabulary = logits.size(1);
  at::Tensor losses = at::empty({rows}, at::TensorOptions().dtype(at::kDouble));
  const int64_t* target = targets.const_data_ptr<int64_t>();
  with_row_kernels(logits, [&](const auto& kernels, auto kind) {
    using T = decltype(kind);
    T* data = rows_out<T>(logits);
    for_rows(rows, vocabulary, [&](int64_t begin, int64_t end) {
      std::vector<float> scratch(softcap ? static_cast<size_t>(vocabulary) : 0);
      for (int64_t i = begin; i < end; ++i) {
        rows_out<double>(losses)[i] =
            kernels.cross_entropy(data + i * vocabulary, vocabulary, target[i],
                                  static_cast<float>(softcap.value_or(0.0)), gradient_wanted, scratch.data());
      }
    });
  });
  return losses.sum();
}

// The same for logits of any dtype and with a soft-cap; fp32 copies are of a part of the rows.
at::Tensor logits_to_gradient(at::Tensor& logits, const at::Tensor& targets, std::optional<double> softcap,
                              bool gradient_wanted) {
  if (takes_fused(FusedKernel::kLoss, logits)) return fused_cross_entropy(logits, targets, softcap, gradient_wanted);
  if (has_row_kernels(logits)) return rows_to_gradient(logits, targets, softcap, gradient_wanted);
  if (logits.scalar_type() == at::kFloat && !softcap) return softmax_in_place(logits, targets, gradient_wanted);
  at::Tensor loss = at::zeros({}, logits.options().dtype(at::kDouble));
  const int64_t at_once = (logits.size(0) + kPartsOfAChunk - 1) / kPartsOfAChunk;
  for (int64_t begin = 0; begin < logits.size(0); begin += at_once) {
    const int64_t rows = std::min(at_once, logits.size(0) - begin);
    at::Tensor part = logits.narrow(0, begin, rows);
    at::Tensor wide = part.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    at::Tensor tangent;
    if (softcap) {
      tangent = wide.div_(*softcap).tanh_();
      wide = at::mul(tangent, *softcap);
    }
    loss.add_(softmax_in_place(wide, targets.narrow(0, begin, rows), gradient_wanted));
    if (!gradient_wanted) continue;
    if (softcap) wide.mul_(tangent.square_().neg_().add_(1.0));
    part.copy_(wide);
  }
  return loss;
}

// The head's gradient over the chunks: the sum of logits_gradient^T @ rows, in fp32 where there is more than one chunk.
class WeightGradient {
 public:
  WeightGradient(const at::Tensor& weight, int64_t chunks) : weight_(weight), chunks_(chunks) {}

  void add(const at::Tensor& logits_gradient, const at::Tensor& rows) {
    const bool first = !total_.defined();
    if (first) {
      total_ = at::empty(weight_.sizes(), weight_.options().dtype(chunks_ == 1 ? weight_.scalar_type() : at::kFloat));
    }
    for (int64_t begin = 0; begin < total_.size(0); begin += kVocabularyBlock) {
      const int64_t pieces = std::min(kVocabularyBlock, total_.size(0) - begin);
      at::Tensor part = total_.narrow(0, begin, pieces);
      product_into(part, logits_gradient.narrow(1, begin, pieces).t(), rows, first ? Into::kReplace : Into::kAdd);
    }
  }

  at::Tensor take() {
    if (!total_.defined()) return at::zeros_like(weight_, at::MemoryFormat::Contiguous);
    return std::exchange(total_, at::Tensor()).to(weight_.scalar_type());
  }

 private:
  at::Tensor weight_, total_;
  int64_t chunks_;
};

}  // namespace

at::Tensor chunked_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& target_rows,
                                 const at::Tensor& targets, const CrossEntropyOptions& options) {
  const bool hidden_wanted = wants_gradient({hidden}), weight_wanted = wants_gradient({weight});
  const bool gradient_wanted = hidden_wanted || weight_wanted;
  at::NoGradGuard no_grad;
  const at::ScalarType dtype = hidden.scalar_type();
  const int64_t count = target_rows.size(0);
  const at::Tensor head = weight.detach().to(dtype), target_ids = targets.contiguous();
  const int64_t chunk = std::min(rows_per_chunk(weight, dtype, options), std::max<int64_t>(count, 1));

  at::Tensor loss = at::zeros({}, hidden.options().dtype(at::kDouble));
  at::Tensor hidden_gradient;
  if (hidden_wanted) hidden_gradient = at::zeros_like(hidden, at::MemoryFormat::Contiguous);
  WeightGradient weight_total(weight.detach(), (count + chunk - 1) / chunk);
  for (int64_t begin = 0; begin < count; begin += chunk) {
    const int64_t tokens = std::min(chunk, count - begin);
    const at::Tensor places = target_rows.narrow(0, begin, tokens);
    const at::Tensor rows = hidden.detach().index_select(0, places);
    at::Tensor logits = product(rows, head.t());
    loss.add_(logits_to_gradient(logits, target_ids.narrow(0, begin, tokens), options.logit_softcap, gradient_wanted));
    if (hidden_wanted) hidden_gradient.index_copy_(0, places, product(logits, head));
    if (weight_wanted) weight_total.add(logits, rows);
  }
  const at::Tensor result = loss.to(at::kFloat);
  if (!gradient_wanted) return result;
  return with_backward(
      result, {hidden, weight},
      [hidden_gradient, weight_gradient = weight_wanted ? weight_total.take() : at::Tensor(),
       is_one = options.backward_starts_here](const at::Tensor& gradient) mutable -> std::vector<at::Tensor> {
        if (!hidden_gradient.defined() && !weight_gradient.defined()) {
          throw Error(ErrorKind::kInternal, "cross-entropy: its backward pass can run only once");
        }
        if (is_one && gradient.is_cpu() && gradient.item<float>() != 1.0f) {
          throw Error(ErrorKind::kInternal, "cross-entropy: backward was not called on the loss");
        }
        // In place and given away, as these tensors are the largest of a step.
        if (hidden_gradient.defined() && !is_one) hidden_gradient.mul_(gradient);
        if (weight_gradient.defined() && !is_one) weight_gradient.mul_(gradient);
        return {std::move(hidden_gradient), std::move(weight_gradient)};
      });
}

}  // namespace gemma_sft
