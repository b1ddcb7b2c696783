#include "model/chunked_cross_entropy.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <utility>

#include "configs/error.h"
#include "model/hand_written_backward.h"

namespace gemma_sft {
namespace {

constexpr int64_t kChunkBytesCpu = int64_t{64} << 20;
constexpr int64_t kChunkBytesCuda = int64_t{512} << 20;
// The fp32 work on bf16 or soft-capped logits takes this part of a chunk at a time.
constexpr int64_t kPartsOfAChunk = 16;
// Rows of the head's gradient that a bf16 product is made for at a time.
constexpr int64_t kVocabularyBlock = 16384;

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

// The same for logits of any dtype and with a soft-cap; fp32 copies are of a part of the rows.
at::Tensor logits_to_gradient(at::Tensor& logits, const at::Tensor& targets, std::optional<double> softcap,
                              bool gradient_wanted) {
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

// total [vocab, width] += logits_gradient^T @ rows. Summed in fp32 over the chunks: a bf16 product is added block by
// block.
void add_weight_gradient(at::Tensor& total, const at::Tensor& logits_gradient, const at::Tensor& rows) {
  if (rows.scalar_type() == total.scalar_type()) {
    total.addmm_(logits_gradient.t(), rows);
    return;
  }
  for (int64_t begin = 0; begin < total.size(0); begin += kVocabularyBlock) {
    const int64_t pieces = std::min(kVocabularyBlock, total.size(0) - begin);
    total.narrow(0, begin, pieces).add_(at::mm(logits_gradient.narrow(1, begin, pieces).t(), rows));
  }
}

}  // namespace

at::Tensor chunked_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& target_rows,
                                 const at::Tensor& targets, const CrossEntropyOptions& options) {
  const bool hidden_wanted = wants_gradient({hidden}), weight_wanted = wants_gradient({weight});
  const bool gradient_wanted = hidden_wanted || weight_wanted;
  at::NoGradGuard no_grad;
  const at::ScalarType dtype = hidden.scalar_type();
  const int64_t count = target_rows.size(0), vocabulary = weight.size(0);
  const at::Tensor head = weight.detach().to(dtype);
  const int64_t chunk = std::min(rows_per_chunk(weight, dtype, options), std::max<int64_t>(count, 1));

  at::Tensor loss = at::zeros({}, hidden.options().dtype(at::kDouble));
  at::Tensor hidden_gradient, weight_gradient;
  if (hidden_wanted) hidden_gradient = at::zeros_like(hidden, at::MemoryFormat::Contiguous);
  if (weight_wanted) {
    // One chunk needs no sum in a wider dtype.
    weight_gradient =
        at::zeros(weight.sizes(), weight.options().dtype(count > chunk ? at::kFloat : weight.scalar_type()));
  }
  const at::Tensor buffer = at::empty({count == 0 ? 0 : chunk, vocabulary}, hidden.options());
  for (int64_t begin = 0; begin < count; begin += chunk) {
    const int64_t tokens = std::min(chunk, count - begin);
    const at::Tensor places = target_rows.narrow(0, begin, tokens);
    const at::Tensor rows = hidden.detach().index_select(0, places);
    at::Tensor logits = buffer.narrow(0, 0, tokens);
    at::mm_out(logits, rows, head.t());
    loss.add_(logits_to_gradient(logits, targets.narrow(0, begin, tokens), options.logit_softcap, gradient_wanted));
    if (hidden_wanted) hidden_gradient.index_copy_(0, places, at::mm(logits, head));
    if (weight_wanted) add_weight_gradient(weight_gradient, logits, rows);
  }
  if (weight_wanted) weight_gradient = weight_gradient.to(weight.scalar_type());
  const at::Tensor result = loss.to(at::kFloat);
  if (!gradient_wanted) return result;
  return with_backward(
      result, {hidden, weight},
      [hidden_gradient, weight_gradient](const at::Tensor& gradient) mutable -> std::vector<at::Tensor> {
        if (!hidden_gradient.defined() && !weight_gradient.defined()) {
          throw Error(ErrorKind::kInternal, "cross-entropy: its backward pass can run only once");
        }
        // In place and given away, as these tensors are the largest of a step. A CPU scalar of 1 needs no pass at all.
        const bool is_one = gradient.is_cpu() && gradient.item<float>() == 1.0f;
        if (hidden_gradient.defined() && !is_one) hidden_gradient.mul_(gradient);
        if (weight_gradient.defined() && !is_one) weight_gradient.mul_(gradient);
        return {std::move(hidden_gradient), std::move(weight_gradient)};
      });
}

}  // namespace gemma_sft
