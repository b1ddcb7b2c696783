#include "model/blockwise_attention.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>

#include "model/hand_written_backward.h"

namespace gemma_sft {
namespace {

constexpr int64_t kQueryBlock = 128;

// Grouped heads are folded into the rows: [documents, heads, n, dim] -> [documents * kv_heads, heads / kv_heads, n,
// dim].
struct Shape {
  int64_t batch, group, queries, keys, dim;
};

// The queries [begin, end) and the keys [first_key, last_key) that any of them sees.
struct Block {
  int64_t begin, end, first_key, last_key;
};

std::vector<Block> make_blocks(const Shape& shape, int64_t window) {
  std::vector<Block> blocks;
  const int64_t earlier = shape.keys - shape.queries;
  for (int64_t begin = 0; begin < shape.queries; begin += kQueryBlock) {
    const int64_t end = std::min(begin + kQueryBlock, shape.queries);
    const int64_t first_key = window > 0 ? std::max<int64_t>(0, earlier + begin - window + 1) : 0;
    blocks.push_back({begin, end, first_key, earlier + end});
  }
  return blocks;
}

// True where a query of the block must not see a key: [queries, keys].
at::Tensor hidden_keys(const Block& block, const Shape& shape, int64_t window, at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  const at::Tensor query = at::arange(block.begin, block.end, options).add_(shape.keys - shape.queries).unsqueeze(1);
  const at::Tensor key = at::arange(block.first_key, block.last_key, options).unsqueeze(0);
  at::Tensor hidden = key.gt(query);
  if (window > 0) hidden.logical_or_(key.le(at::sub(query, window)));
  return hidden;
}

at::Tensor rows_of(const at::Tensor& x, const Block& block, const Shape& shape) {
  return x.narrow(2, block.begin, block.end - block.begin).reshape({shape.batch, -1, shape.dim});
}

at::Tensor keys_of(const at::Tensor& x, const Block& block) {
  return x.narrow(1, block.first_key, block.last_key - block.first_key);
}

struct Scores {
  at::Tensor masked;   // fp32 [batch, group * queries, keys], -inf where hidden
  at::Tensor tangent;  // tanh(scores / softcap); undefined without a soft-cap
};

Scores score(const at::Tensor& query_rows, const at::Tensor& keys, const Block& block, const Shape& shape,
             const AttentionOptions& options) {
  Scores scores;
  at::Tensor raw = at::bmm(query_rows, keys.transpose(1, 2)).to(at::kFloat).mul_(options.scale);
  if (options.softcap) {
    scores.tangent = raw.div_(*options.softcap).tanh_();
    raw = at::mul(scores.tangent, *options.softcap);
  }
  raw.view({shape.batch, shape.group, block.end - block.begin, block.last_key - block.first_key})
      .masked_fill_(hidden_keys(block, shape, options.window, raw.device()), -std::numeric_limits<float>::infinity());
  scores.masked = raw;
  return scores;
}

struct Gradients {
  at::Tensor query, key, value;
};

Gradients backward(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const at::Tensor& output,
                   const at::Tensor& log_sums, const at::Tensor& output_gradient, const Shape& shape,
                   const AttentionOptions& options) {
  const at::ScalarType dtype = query.scalar_type();
  Gradients gradients;
  gradients.query = at::empty(query.sizes(), query.options());
  // Each key block gets parts from several query blocks: summed in fp32.
  gradients.key = at::zeros(key.sizes(), key.options().dtype(at::kFloat));
  gradients.value = at::zeros(value.sizes(), value.options().dtype(at::kFloat));
  for (const Block& block : make_blocks(shape, options.window)) {
    const int64_t queries = block.end - block.begin;
    const at::Tensor query_rows = rows_of(query, block, shape), keys = keys_of(key, block),
                     values = keys_of(value, block), gradient_rows = rows_of(output_gradient, block, shape);
    const at::Tensor sums = log_sums.narrow(2, block.begin, queries).reshape({shape.batch, shape.group * queries, 1});
    const Scores scores = score(query_rows, keys, block, shape, options);
    const at::Tensor weights = at::sub(scores.masked, sums).exp_();
    keys_of(gradients.value, block).add_(at::bmm(weights.to(dtype).transpose(1, 2), gradient_rows));

    const at::Tensor along =
        at::mul(gradient_rows.to(at::kFloat), rows_of(output, block, shape)).sum(-1, /*keepdim=*/true);
    at::Tensor score_gradient = at::bmm(gradient_rows, values.transpose(1, 2)).to(at::kFloat).sub_(along).mul_(weights);
    if (options.softcap) score_gradient.mul_(at::mul(scores.tangent, scores.tangent).neg_().add_(1.0));
    score_gradient = score_gradient.mul_(options.scale).to(dtype);
    gradients.query.narrow(2, block.begin, queries)
        .copy_(at::bmm(score_gradient, keys).view({shape.batch, shape.group, queries, shape.dim}));
    keys_of(gradients.key, block).add_(at::bmm(score_gradient.transpose(1, 2), query_rows));
  }
  gradients.key = gradients.key.to(dtype);
  gradients.value = gradients.value.to(dtype);
  return gradients;
}

}  // namespace

at::Tensor blockwise_attention(const at::Tensor& query_heads, const at::Tensor& key_heads,
                               const at::Tensor& value_heads, const AttentionOptions& options) {
  const bool differentiable = wants_gradient({query_heads, key_heads, value_heads});
  at::NoGradGuard no_grad;
  const int64_t documents = query_heads.size(0), kv_heads = key_heads.size(1);
  const Shape shape{documents * kv_heads, query_heads.size(1) / kv_heads, query_heads.size(2), key_heads.size(2),
                    query_heads.size(3)};
  const at::Tensor query = query_heads.detach().reshape({shape.batch, shape.group, shape.queries, shape.dim});
  const at::Tensor key = key_heads.detach().reshape({shape.batch, shape.keys, shape.dim});
  const at::Tensor value = value_heads.detach().reshape({shape.batch, shape.keys, shape.dim});

  at::Tensor output = at::empty(query.sizes(), query.options());
  at::Tensor log_sums = at::empty({shape.batch, shape.group, shape.queries}, query.options().dtype(at::kFloat));
  for (const Block& block : make_blocks(shape, options.window)) {
    const int64_t queries = block.end - block.begin;
    const Scores scores = score(rows_of(query, block, shape), keys_of(key, block), block, shape, options);
    const at::Tensor sums = scores.masked.logsumexp({-1}, /*keepdim=*/true);
    const at::Tensor weights = at::sub(scores.masked, sums).exp_().to(query.scalar_type());
    output.narrow(2, block.begin, queries)
        .copy_(at::bmm(weights, keys_of(value, block)).view({shape.batch, shape.group, queries, shape.dim}));
    log_sums.narrow(2, block.begin, queries).copy_(sums.view({shape.batch, shape.group, queries}));
  }
  at::Tensor result = output.view(query_heads.sizes());
  if (!differentiable) return result;
  return with_backward(
      result, {query_heads, key_heads, value_heads},
      [query, key, value, output, log_sums, shape, options, query_sizes = query_heads.sizes().vec(),
       key_sizes = key_heads.sizes().vec()](const at::Tensor& gradient) -> std::vector<at::Tensor> {
        const Gradients gradients =
            backward(query, key, value, output, log_sums, gradient.reshape(query.sizes()), shape, options);
        return {gradients.query.view(query_sizes), gradients.key.view(key_sizes), gradients.value.view(key_sizes)};
      });
}

}  // namespace gemma_sft
