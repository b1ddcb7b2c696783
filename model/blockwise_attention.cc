#include "model/blockwise_attention.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "model/cpu_rows.h"
#include "model/gpu/fused.h"
#include "model/hand_written_backward.h"
#include "model/matrix_product.h"

namespace gemma_sft {
namespace {

// Queries at a time. On a GPU fewer and larger products; not measured there yet.
constexpr int64_t kQueryBlockCpu = 128;
constexpr int64_t kQueryBlockCuda = 512;

// The heads that share a key head are folded into the rows: queries are [batch, queries * group, dim], keys [batch,
// keys, dim] with batch = documents * kv_heads; row = query * group + head. With one key head that is how they lie in
// memory anyway.
struct Shape {
  int64_t documents, kv_heads, group, queries, keys, dim;
  int64_t batch() const { return documents * kv_heads; }
};

at::Tensor fold_queries(const at::Tensor& x, const Shape& shape) {
  return x.reshape({shape.documents, shape.queries, shape.kv_heads, shape.group, shape.dim})
      .transpose(1, 2)
      .reshape({shape.batch(), shape.queries * shape.group, shape.dim});
}

at::Tensor unfold_queries(const at::Tensor& x, const Shape& shape) {
  return x.view({shape.documents, shape.kv_heads, shape.queries, shape.group, shape.dim})
      .transpose(1, 2)
      .reshape({shape.documents, shape.queries, shape.kv_heads * shape.group, shape.dim});
}

at::Tensor fold_keys(const at::Tensor& x, const Shape& shape) {
  return x.transpose(1, 2).reshape({shape.batch(), shape.keys, shape.dim});
}

at::Tensor unfold_keys(const at::Tensor& x, const Shape& shape) {
  return x.view({shape.documents, shape.kv_heads, shape.keys, shape.dim}).transpose(1, 2);
}

// The queries [begin, end) and the keys [first_key, last_key) that any of them sees.
struct Block {
  int64_t begin, end, first_key, last_key;
  int64_t keys() const { return last_key - first_key; }
};

std::vector<Block> make_blocks(const Shape& shape, int64_t window, at::Device device) {
  const int64_t at_once = device.is_cuda() ? kQueryBlockCuda : kQueryBlockCpu;
  std::vector<Block> blocks;
  const int64_t earlier = shape.keys - shape.queries;
  for (int64_t begin = 0; begin < shape.queries; begin += at_once) {
    const int64_t end = std::min(begin + at_once, shape.queries);
    const int64_t first_key = window > 0 ? std::max<int64_t>(0, earlier + begin - window + 1) : 0;
    blocks.push_back({begin, end, first_key, earlier + end});
  }
  return blocks;
}

at::Tensor rows_of(const at::Tensor& x, const Block& block, const Shape& shape) {
  return x.narrow(1, block.begin * shape.group, (block.end - block.begin) * shape.group);
}

at::Tensor keys_of(const at::Tensor& x, const Block& block) { return x.narrow(1, block.first_key, block.keys()); }

// What row `row` of a block's scores sees.
ScoreRow score_row(int64_t row, const Block& block, const Shape& shape, const AttentionOptions& options) {
  const int64_t query = block.begin + row / shape.group + shape.keys - shape.queries;
  ScoreRow result;
  result.keys = block.keys();
  result.last = query + 1 - block.first_key;
  result.first = options.window > 0 ? std::max<int64_t>(0, result.last - options.window) : 0;
  result.scale = static_cast<float>(options.scale);
  result.softcap = static_cast<float>(options.softcap.value_or(0.0));
  return result;
}

// The same for all rows of a block at once, for the GPU's kernels.
ScoreBlock score_block(const at::Tensor& log_sums, const Block& block, const Shape& shape,
                       const AttentionOptions& options) {
  return {.stacks = shape.batch(),
          .rows = (block.end - block.begin) * shape.group,
          .keys = block.keys(),
          .group = shape.group,
          .first_last = block.begin + shape.keys - shape.queries + 1 - block.first_key,
          .window = options.window,
          .scale = static_cast<float>(options.scale),
          .softcap = static_cast<float>(options.softcap.value_or(0.0)),
          .log_sum_stride = log_sums.stride(0)};
}

// True where a query of the block must not see a key: [queries, 1, keys].
at::Tensor hidden_keys(const Block& block, const Shape& shape, int64_t window, at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  const at::Tensor query =
      at::arange(block.begin, block.end, options).add_(shape.keys - shape.queries).view({-1, 1, 1});
  const at::Tensor key = at::arange(block.first_key, block.last_key, options);
  at::Tensor hidden = key.gt(query);
  if (window > 0) hidden.logical_or_(key.le(at::sub(query, window)));
  return hidden;
}

// Scaled, capped and masked scores in fp32, -inf where hidden; and the slope of the cap.
struct WideScores {
  at::Tensor masked, slope;
};

WideScores widen(const at::Tensor& scores, const Block& block, const Shape& shape, const AttentionOptions& options) {
  WideScores wide;
  wide.masked = at::mul(scores.to(at::kFloat), options.scale);
  if (options.softcap) {
    const at::Tensor tangent = wide.masked.div_(*options.softcap).tanh_();
    wide.masked = at::mul(tangent, *options.softcap);
    wide.slope = at::mul(tangent, tangent).neg_().add_(1.0);
  }
  wide.masked.view({shape.batch(), block.end - block.begin, shape.group, block.keys()})
      .masked_fill_(hidden_keys(block, shape, options.window, scores.device()),
                    -std::numeric_limits<float>::infinity());
  return wide;
}

// scores [batch, rows, keys] -> softmax weights of the same dtype; log_sums [batch, rows, 1] fp32 is written.
at::Tensor to_weights(at::Tensor scores, at::Tensor log_sums, const Block& block, const Shape& shape,
                      const AttentionOptions& options) {
  if (takes_fused(FusedKernel::kAttention, scores)) {
    const c10::DeviceGuard guard(scores.device());
    with_fused(scores, [&](const auto& kernels, auto kind) {
      kernels.attention_weights(score_block(log_sums, block, shape, options), rows_out<decltype(kind)>(scores),
                                rows_out<float>(log_sums), fused_stream(scores));
    });
    return scores;
  }
  if (!has_row_kernels(scores)) {
    const at::Tensor masked = widen(scores, block, shape, options).masked;
    const at::Tensor sums = masked.logsumexp({-1}, /*keepdim=*/true);
    log_sums.copy_(sums);
    return at::sub(masked, sums).exp_().to(scores.scalar_type());
  }
  const int64_t rows = scores.size(1), keys = scores.size(2), stride = log_sums.stride(0);
  float* sums = rows_out<float>(log_sums);
  with_row_kernels(scores, [&](const auto& kernels, auto kind) {
    using T = decltype(kind);
    T* data = rows_out<T>(scores);
    for_rows(shape.batch() * rows, keys, [&](int64_t begin, int64_t end) {
      std::vector<float> scratch(static_cast<size_t>(keys));
      for (int64_t i = begin; i < end; ++i) {
        sums[i / rows * stride + i % rows] =
            kernels.attention_weights(score_row(i % rows, block, shape, options), data + i * keys, scratch.data());
      }
    });
  });
  return scores;
}

struct RowGradients {
  at::Tensor weights, scores;
};

// The scores made again and the gradient of the weights -> the weights and the gradient of the scores, scale included.
RowGradients to_gradients(at::Tensor scores, at::Tensor weights_gradient, const at::Tensor& log_sums,
                          const Block& block, const Shape& shape, const AttentionOptions& options) {
  if (takes_fused(FusedKernel::kAttention, scores)) {
    const c10::DeviceGuard guard(scores.device());
    with_fused(scores, [&](const auto& kernels, auto kind) {
      using T = decltype(kind);
      kernels.attention_backward(score_block(log_sums, block, shape, options), rows_in<float>(log_sums),
                                 rows_out<T>(scores), rows_out<T>(weights_gradient), fused_stream(scores));
    });
    return {scores, weights_gradient};
  }
  if (!has_row_kernels(scores)) {
    const WideScores wide = widen(scores, block, shape, options);
    const at::Tensor weights = at::sub(wide.masked, log_sums).exp_();
    at::Tensor gradient = weights_gradient.to(at::kFloat);
    gradient = gradient.sub(at::mul(gradient, weights).sum(-1, /*keepdim=*/true)).mul_(weights).mul_(options.scale);
    if (options.softcap) gradient.mul_(wide.slope);
    return {weights.to(scores.scalar_type()), gradient.to(scores.scalar_type())};
  }
  const int64_t rows = scores.size(1), keys = scores.size(2), stride = log_sums.stride(0);
  const float* sums = rows_in<float>(log_sums);
  with_row_kernels(scores, [&](const auto& kernels, auto kind) {
    using T = decltype(kind);
    T* data = rows_out<T>(scores);
    T* gradient = rows_out<T>(weights_gradient);
    for_rows(shape.batch() * rows, keys, [&](int64_t begin, int64_t end) {
      std::vector<float> scratch(static_cast<size_t>(keys));
      for (int64_t i = begin; i < end; ++i) {
        kernels.attention_backward(score_row(i % rows, block, shape, options), sums[i / rows * stride + i % rows],
                                   data + i * keys, gradient + i * keys, scratch.data());
      }
    });
  });
  return {scores, weights_gradient};
}

struct Gradients {
  at::Tensor query, key, value;  // folded
};

Gradients backward(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const at::Tensor& log_sums,
                   const at::Tensor& output_gradient, const Shape& shape, const AttentionOptions& options) {
  const at::ScalarType dtype = query.scalar_type();
  const std::vector<Block> blocks = make_blocks(shape, options.window, query.device());
  Gradients gradients;
  if (blocks.size() > 1) {
    gradients.query = at::empty(query.sizes(), query.options());
    // A key gets parts from several blocks of queries: summed in fp32.
    gradients.key = at::zeros(key.sizes(), key.options().dtype(at::kFloat));
    gradients.value = at::zeros(value.sizes(), value.options().dtype(at::kFloat));
  }
  for (const Block& block : blocks) {
    const at::Tensor query_rows = rows_of(query, block, shape), keys = keys_of(key, block),
                     values = keys_of(value, block), gradient_rows = rows_of(output_gradient, block, shape);
    const RowGradients made = to_gradients(batched_product(query_rows, keys.transpose(1, 2)),
                                           batched_product(gradient_rows, values.transpose(1, 2)),
                                           rows_of(log_sums, block, shape), block, shape, options);
    const at::Tensor value_part = batched_product(made.weights.transpose(1, 2), gradient_rows);
    const at::Tensor key_part = batched_product(made.scores.transpose(1, 2), query_rows);
    const at::Tensor query_part = batched_product(made.scores, keys);
    if (blocks.size() == 1) return {query_part, key_part, value_part};
    rows_of(gradients.query, block, shape).copy_(query_part);
    keys_of(gradients.key, block).add_(key_part);
    keys_of(gradients.value, block).add_(value_part);
  }
  gradients.key = gradients.key.to(dtype);
  gradients.value = gradients.value.to(dtype);
  return gradients;
}

}  // namespace

at::Tensor blockwise_attention(const at::Tensor& given_query, const at::Tensor& given_key,
                               const at::Tensor& given_value, const AttentionOptions& options) {
  const bool differentiable = wants_gradient({given_query, given_key, given_value});
  at::NoGradGuard no_grad;
  const int64_t kv_heads = given_key.size(2);
  const Shape shape{given_query.size(0), kv_heads,          given_query.size(2) / kv_heads,
                    given_query.size(1), given_key.size(1), given_query.size(3)};
  const at::Tensor query = fold_queries(given_query.detach(), shape), key = fold_keys(given_key.detach(), shape),
                   value = fold_keys(given_value.detach(), shape);

  at::Tensor output = at::empty(query.sizes(), query.options());
  at::Tensor log_sums = at::empty({shape.batch(), shape.queries * shape.group, 1}, query.options().dtype(at::kFloat));
  for (const Block& block : make_blocks(shape, options.window, query.device())) {
    const at::Tensor weights =
        to_weights(batched_product(rows_of(query, block, shape), keys_of(key, block).transpose(1, 2)),
                   rows_of(log_sums, block, shape), block, shape, options);
    rows_of(output, block, shape).copy_(batched_product(weights, keys_of(value, block)));
  }
  at::Tensor result = unfold_queries(output, shape);
  if (!differentiable) return result;
  return with_backward(
      result, {given_query, given_key, given_value},
      [query, key, value, log_sums, shape, options](const at::Tensor& gradient) -> std::vector<at::Tensor> {
        const Gradients gradients =
            backward(query, key, value, log_sums, fold_queries(gradient, shape), shape, options);
        return {unfold_queries(gradients.query, shape), unfold_keys(gradients.key, shape),
                unfold_keys(gradients.value, shape)};
      });
}

}  // namespace gemma_sft
