#include "model/attention.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>

#include "model/blockwise_attention.h"
#include "model/gpu/flash_attention.h"
#include "model/hand_written_backward.h"

namespace gemma_sft {
namespace {

// A document joins a group while it is at least this share of the group's longest.
constexpr double kLeastFill = 0.7;

std::vector<int64_t> with_first(const at::Tensor& x, int64_t first) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes[0] = first;
  return sizes;
}

at::Tensor copy_to_rows(const at::Tensor& tokens, const DocumentLayout& layout) {
  at::Tensor rows = at::zeros(with_first(tokens, layout.rows), tokens.options());
  return rows.index_copy_(0, layout.places, tokens);
}

// Tokens -> rows, zeros where no token is; and back. Each is the other's backward pass.
at::Tensor to_rows(const at::Tensor& tokens, const DocumentLayout& layout) {
  if (!layout.places.defined()) return tokens;
  const bool differentiable = wants_gradient({tokens});
  at::NoGradGuard no_grad;
  at::Tensor rows = copy_to_rows(tokens, layout);
  if (!differentiable) return rows;
  return with_backward(rows, {tokens}, [places = layout.places](const at::Tensor& gradient) -> std::vector<at::Tensor> {
    return {gradient.index_select(0, places)};
  });
}

at::Tensor from_rows(const at::Tensor& rows, const DocumentLayout& layout) {
  if (!layout.places.defined()) return rows;
  const bool differentiable = wants_gradient({rows});
  at::NoGradGuard no_grad;
  at::Tensor tokens = rows.index_select(0, layout.places);
  if (!differentiable) return tokens;
  return with_backward(tokens, {rows}, [layout](const at::Tensor& gradient) -> std::vector<at::Tensor> {
    return {copy_to_rows(gradient, layout)};
  });
}

at::Tensor as_documents(const at::Tensor& rows, const DocumentLayout::Group& group) {
  return rows.view({group.documents, group.length, rows.size(1), rows.size(2)});
}

}  // namespace

DocumentLayout lay_out_documents(const DeviceBatch& batch) {
  DocumentLayout layout;
  layout.document_offsets = batch.document_offsets;
  for (size_t i = 1; i < batch.document_offsets.size(); ++i) {
    layout.longest = std::max(layout.longest, batch.document_offsets[i] - batch.document_offsets[i - 1]);
  }
  const auto documents = static_cast<int64_t>(batch.document_lengths.size());
  const int64_t tokens = batch.input_ids.size(0);
  layout.rows = tokens;
  if (batch.padded_length > 0) {
    layout.groups.push_back({documents, batch.padded_length});
    return layout;
  }

  std::vector<int64_t> order(documents);
  std::iota(order.begin(), order.end(), int64_t{0});
  const std::vector<int64_t>& lengths = batch.document_lengths;
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
  const bool on_cuda = batch.input_ids.is_cuda();
  at::Tensor places = at::empty({tokens}, at::TensorOptions().dtype(at::kLong).pinned_memory(on_cuda));
  int64_t* place = places.data_ptr<int64_t>();
  layout.rows = 0;
  bool in_order = true;
  for (const int64_t document : order) {
    const int64_t length = lengths[document];
    if (length == 0) continue;
    if (layout.groups.empty() ||
        static_cast<double>(length) < kLeastFill * static_cast<double>(layout.groups.back().length)) {
      layout.groups.push_back({0, length});
    }
    DocumentLayout::Group& group = layout.groups.back();
    ++group.documents;
    const int64_t first_token = batch.document_offsets[document];
    in_order = in_order && first_token == layout.rows;
    for (int64_t i = 0; i < length; ++i) place[first_token + i] = layout.rows + i;
    layout.rows += group.length;
  }
  if (!in_order || layout.rows != tokens) layout.places = places.to(batch.input_ids.device(), /*non_blocking=*/true);
  return layout;
}

const at::Tensor& DocumentLayout::offsets(at::Device device) const {
  if (!offsets_on_device.defined()) {
    const auto on_host = at::TensorOptions().dtype(at::kInt).pinned_memory(device.is_cuda());
    at::Tensor values = at::empty({static_cast<int64_t>(document_offsets.size())}, on_host);
    std::copy(document_offsets.begin(), document_offsets.end(), values.data_ptr<int32_t>());
    offsets_on_device = values.to(device, /*non_blocking=*/true);
  }
  return offsets_on_device;
}

at::Tensor attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const DocumentLayout& layout,
                  const AttentionOptions& options) {
  const int64_t width = query.size(1) * query.size(2);
  if (takes_flash(query, options)) {
    return flash_attention(query, key, value, layout.offsets(query.device()), layout.longest, options)
        .view({query.size(0), width});
  }
  const at::Tensor queries = to_rows(query, layout), keys = to_rows(key, layout), values = to_rows(value, layout);
  std::vector<int64_t> sizes;
  for (const DocumentLayout::Group& group : layout.groups) sizes.push_back(group.documents * group.length);
  const std::vector<at::Tensor> query_parts = queries.split_with_sizes(sizes), key_parts = keys.split_with_sizes(sizes),
                                value_parts = values.split_with_sizes(sizes);
  std::vector<at::Tensor> outputs;
  for (size_t i = 0; i < layout.groups.size(); ++i) {
    const DocumentLayout::Group& group = layout.groups[i];
    const at::Tensor output =
        blockwise_attention(as_documents(query_parts[i], group), as_documents(key_parts[i], group),
                            as_documents(value_parts[i], group), options);
    outputs.push_back(output.reshape({sizes[i], width}));
  }
  return from_rows(outputs.size() == 1 ? outputs.front() : at::cat(outputs), layout);
}

}  // namespace gemma_sft
