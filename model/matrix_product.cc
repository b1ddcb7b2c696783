#include "model/matrix_product.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "model/cpu_rows.h"

namespace gemma_sft {
namespace {

// Below this many multiplications the call of oneDNN costs more than it saves.
constexpr int64_t kLeastWork = 1 << 17;
// Rows and columns of what is widened to fp32 at a time: of the layers of small models all, of a vocabulary a part.
constexpr int64_t kWideBlock = 4096;

using LinearPointwise = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                                   std::string_view, c10::List<std::optional<at::Scalar>>,
                                   std::optional<std::string_view>);

// oneDNN's x @ weight^T for plain tensors. LibTorch has no public function for it; the compiler of Python's torch calls
// this operator by name, and so do we. Absent (another build of LibTorch, another processor): at::mm.
const std::optional<c10::TypedOperatorHandle<LinearPointwise>>& onednn_linear() {
  static const auto found = []() -> std::optional<c10::TypedOperatorHandle<LinearPointwise>> {
    const auto schema = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
    if (!schema || !schema->hasKernelForDispatchKey(c10::DispatchKey::CPU)) return std::nullopt;
    if (schema->schema().arguments().size() != 6) return std::nullopt;
    return schema->typed<LinearPointwise>();
  }();
  return found;
}

bool goes_to_onednn(const at::Tensor& a, const at::Tensor& b) {
  return !product_habits().mkl_for_fp32 && a.is_cpu() && a.scalar_type() == at::kFloat &&
         b.scalar_type() == at::kFloat && onednn_linear().has_value();
}

// oneDNN wants rows that lie one after the other; the transpose of such a matrix is made by our own kernel.
at::Tensor contiguous_rows(const at::Tensor& a) {
  if (a.is_contiguous() || a.stride(0) != 1 || a.stride(1) < a.size(0)) return a.contiguous();
  const int64_t rows = a.size(0), columns = a.size(1), stride = a.stride(1);
  at::Tensor result = at::empty(a.sizes(), a.options());
  const float* in = rows_in<float>(a);
  float* out = rows_out<float>(result);
  // In stripes of 16 rows of the result: whole cache lines.
  for_rows((rows + 15) / 16, 16 * columns, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * 16, last = std::min(end * 16, rows);
    cpu_kernels().transpose(in + first, columns, last - first, stride, out + first * columns);
  });
  return result;
}

// For a product of a new shape oneDNN makes an object of a quarter of a megabyte, and uses it without a look at whether
// there was room: that would be a crash instead of an error.
// Less than what model/cpu_memory keeps: this must ask malloc.
void require_room_for_kernel() { at::empty({1 << 19}, at::TensorOptions().dtype(at::kByte)); }

at::Tensor onednn_product(const at::Tensor& a, const at::Tensor& b) {
  require_room_for_kernel();
  // Of other layouts than a dense matrix and its transpose oneDNN has nothing but a reference loop, a hundred times
  // slower.
  const at::Tensor weight = b.is_contiguous() || b.t().is_contiguous() ? b.t() : b.contiguous().t();
  return onednn_linear()->call(contiguous_rows(a), weight, std::nullopt, "none", c10::List<std::optional<at::Scalar>>(),
                               std::nullopt);
}

bool goes_through_fp32(const at::Tensor& a, const at::Tensor& b) {
  return product_habits().bf16_through_fp32 && a.is_cpu() && a.scalar_type() == at::kBFloat16 &&
         b.scalar_type() == at::kBFloat16;
}

// The part of a matrix as fp32, laid out as it is: a transposed view stays one.
at::Tensor wide_part(const at::Tensor& a, int64_t row, int64_t rows, int64_t column, int64_t columns) {
  const at::Tensor part = a.narrow(0, row, rows).narrow(1, column, columns);
  const auto widened = [](const at::Tensor& matrix) {
    at::Tensor wide = at::empty(matrix.sizes(), matrix.options().dtype(at::kFloat));
    return wide.copy_(matrix);
  };
  return a.stride(0) == 1 && a.stride(1) != 1 ? widened(part.t()).t() : widened(part);
}

// out [m, n] bf16 = a @ b
void multiply_through_fp32(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  const int64_t m = a.size(0), k = a.size(1), n = b.size(1);
  for (int64_t row = 0; row < m; row += kWideBlock) {
    const int64_t rows = std::min(kWideBlock, m - row);
    // Of all blocks of a row of blocks, where it is one block deep.
    const at::Tensor left = k <= kWideBlock ? wide_part(a, row, rows, 0, k) : at::Tensor();
    for (int64_t column = 0; column < n; column += kWideBlock) {
      const int64_t columns = std::min(kWideBlock, n - column);
      at::Tensor sum;
      for (int64_t inner = 0; inner < k; inner += kWideBlock) {
        const int64_t depth = std::min(kWideBlock, k - inner);
        const at::Tensor a_part = left.defined() ? left : wide_part(a, row, rows, inner, depth),
                         b_part = wide_part(b, inner, depth, column, columns);
        if (sum.defined()) {
          sum.addmm_(a_part, b_part);
        } else {
          sum = at::mm(a_part, b_part);
        }
      }
      out.narrow(0, row, rows).narrow(1, column, columns).copy_(sum);
    }
  }
}

}  // namespace

at::Tensor product_through_fp32(const at::Tensor& a, const at::Tensor& b) {
  at::NoGradGuard no_grad;
  at::Tensor result = at::empty({a.size(0), b.size(1)}, a.options());
  multiply_through_fp32(result, a, b);
  return result;
}

void product_into(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, Into into) {
  at::NoGradGuard no_grad;
  const bool same_dtype = out.scalar_type() == a.scalar_type();
  const bool plain = same_dtype && !goes_to_onednn(a, b) && !goes_through_fp32(a, b);
  if (plain && into == Into::kAdd) {
    out.addmm_(a, b);
  } else if (plain) {
    at::mm_out(out, a, b);
  } else if (same_dtype && into == Into::kReplace && goes_through_fp32(a, b)) {
    multiply_through_fp32(out, a, b);
  } else if (into == Into::kAdd) {
    out.add_(product(a, b));
  } else {
    out.copy_(product(a, b));
  }
}

at::Tensor product(const at::Tensor& a, const at::Tensor& b) {
  at::NoGradGuard no_grad;
  if (goes_through_fp32(a, b)) return product_through_fp32(a, b);
  if (goes_to_onednn(a, b) && a.size(0) * a.size(1) * b.size(1) >= kLeastWork) return onednn_product(a, b);
  return at::mm(a, b);
}

at::Tensor batched_product(const at::Tensor& a, const at::Tensor& b) {
  at::NoGradGuard no_grad;
  if (goes_through_fp32(a, b)) {
    if (a.size(0) == 1) return product_through_fp32(a.select(0, 0), b.select(0, 0)).unsqueeze(0);
    return at::bmm(a.to(at::kFloat), b.to(at::kFloat)).to(at::kBFloat16);
  }
  if (!goes_to_onednn(a, b) || a.size(1) * a.size(2) * b.size(2) < 8 * kLeastWork) return at::bmm(a, b);
  if (a.size(0) == 1) return onednn_product(a.select(0, 0), b.select(0, 0)).unsqueeze(0);
  std::vector<at::Tensor> products;
  products.reserve(static_cast<size_t>(a.size(0)));
  for (int64_t i = 0; i < a.size(0); ++i) products.push_back(onednn_product(a.select(0, i), b.select(0, i)));
  return at::stack(products);
}

}  // namespace gemma_sft
