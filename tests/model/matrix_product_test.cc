#include "model/matrix_product.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/model/tiny_models.h"

namespace gemma_sft {
namespace {

at::Tensor random(at::IntArrayRef sizes, uint64_t seed) {
  return at::empty(sizes, at::TensorOptions().dtype(at::kFloat))
      .normal_(0, 1, at::Generator(at::detail::createCPUGenerator(seed)));
}

at::Tensor exact(const at::Tensor& a, const at::Tensor& b) { return at::mm(a.to(at::kDouble), b.to(at::kDouble)); }

// Small ones stay with at::mm, large ones go to oneDNN; a transposed view may stand on either side.
TEST(MatrixProduct, EqualsTheFp64ProductForEveryLayout) {
  for (const auto& [m, k, n] :
       {std::tuple<int64_t, int64_t, int64_t>{3, 4, 5}, {100, 64, 90}, {257, 129, 65}, {1, 700, 700}}) {
    const at::Tensor a = random({m, k}, 1), b = random({k, n}, 2), a_turned = random({k, m}, 3).t(),
                     b_turned = random({n, k}, 4).t();
    for (const at::Tensor& left : {a, a_turned}) {
      for (const at::Tensor& right : {b, b_turned}) {
        const at::Tensor result = product(left, right);
        EXPECT_TRUE(result.is_contiguous());
        EXPECT_LE(relative_difference(result, exact(left, right)), 1e-6);
      }
    }
  }
}

TEST(MatrixProduct, TakesColumnsOutOfAWiderMatrix) {
  const at::Tensor wide = random({200, 300}, 1), b = random({200, 80}, 2);
  const at::Tensor part = wide.narrow(1, 37, 111).t();
  EXPECT_LE(relative_difference(product(part, b), exact(part, b)), 1e-6);
}

TEST(MatrixProduct, KeepsBf16) {
  const at::Tensor a = random({64, 96}, 1).to(at::kBFloat16), b = random({96, 80}, 2).to(at::kBFloat16);
  const at::Tensor result = product(a, b);
  EXPECT_EQ(result.scalar_type(), at::kBFloat16);
  EXPECT_LE(relative_difference(result, exact(a, b)), 1.0 / 128);
}

// Deeper, higher and wider than one block; bf16 has 8 bits, so that one rounding is at most 1/256 of a number.
TEST(MatrixProduct, ThroughFp32RoundsTheFp64ProductOnceForEveryLayout) {
  for (const auto& [m, k, n] :
       {std::tuple<int64_t, int64_t, int64_t>{30, 4200, 5}, {4100, 7, 9}, {3, 6, 4099}, {60, 70, 50}}) {
    const at::Tensor a = random({m, k}, 1).to(at::kBFloat16), b = random({k, n}, 2).to(at::kBFloat16),
                     a_turned = random({k, m + 3}, 3).to(at::kBFloat16).narrow(1, 2, m).t(),
                     b_turned = random({n, k}, 4).to(at::kBFloat16).t();
    for (const at::Tensor& left : {a, a_turned}) {
      for (const at::Tensor& right : {b, b_turned}) {
        const at::Tensor result = product_through_fp32(left, right), wanted = exact(left, right);
        EXPECT_EQ(result.scalar_type(), at::kBFloat16);
        EXPECT_TRUE(result.is_contiguous());
        const at::Tensor error = result.to(at::kDouble).sub(wanted).abs_();
        EXPECT_LE(error.sub(wanted.abs().mul(1.0 / 256)).max().item<double>(), 1e-4 * std::sqrt(k))
            << m << " " << k << " " << n;
      }
    }
  }
}

TEST(MatrixProduct, GoesIntoPartOfAnotherMatrix) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor a = random({200, 50}, 1).to(dtype).narrow(1, 3, 40).t(), b = random({200, 70}, 2).to(dtype);
    at::Tensor whole = at::zeros({60, 70}, at::TensorOptions().dtype(at::kFloat)), part = whole.narrow(0, 10, 40);
    product_into(part, a, b, Into::kReplace);
    EXPECT_LE(relative_difference(part, exact(a, b)), dtype == at::kFloat ? 1e-6 : 1.0 / 128);
    product_into(part, a, b, Into::kAdd);
    EXPECT_LE(relative_difference(part, exact(a, b).mul(2)), dtype == at::kFloat ? 1e-6 : 1.0 / 128);
    EXPECT_EQ(whole.narrow(0, 0, 10).abs().max().item<float>(), 0);
    EXPECT_EQ(whole.narrow(0, 50, 10).abs().max().item<float>(), 0);
  }
}

TEST(BatchedProduct, EqualsTheFp64ProductForEveryBatch) {
  for (const int64_t batch : {1, 3}) {
    for (const int64_t size : {8, 120}) {
      const at::Tensor a = random({batch, size, size + 3}, 1),
                       b = random({batch, size + 5, size + 3}, 2).transpose(1, 2);
      EXPECT_LE(relative_difference(batched_product(a, b), at::bmm(a.to(at::kDouble), b.to(at::kDouble))), 1e-6);
      EXPECT_LE(
          relative_difference(batched_product(a.transpose(1, 2), random({batch, size, 7}, 3)),
                              at::bmm(a.transpose(1, 2).to(at::kDouble), random({batch, size, 7}, 3).to(at::kDouble))),
          1e-6);
    }
  }
}

}  // namespace
}  // namespace gemma_sft
