// Row kernels for the CPU: what the model does between matrix products, each in one or two passes over rows that stay
// in the cache, where LibTorch's operators would take one pass over memory each. Plain pointers, no torch, no threads:
// the callers (rms_norm.cc, ...) split the rows over LibTorch's threads. All arithmetic is fp32; T is the dtype in
// memory.
#pragma once

#include <cstdint>

namespace gemma_sft {

struct Bf16 {
  uint16_t bits;
};

// The scores of one row of attention.
struct ScoreRow {
  int64_t keys = 0;             // length of the row
  int64_t first = 0, last = 0;  // the visible keys [first, last), at least one
  float scale = 1;
  float softcap = 0;  // 0: none
};

template <typename T>
struct RowKernels {
  // out = x / sqrt(mean(x^2) + eps) * scale per row of `width`; inverse[row] keeps 1 / sqrt(...).
  void (*rms_norm)(const T* x, const float* scale, float eps, int64_t rows, int64_t width, T* out, float* inverse);
  // x_gradient may be null; scale_gradient [width] is added to, or null.
  void (*rms_norm_backward)(const T* gradient, const T* x, const float* inverse, const float* scale, int64_t rows,
                            int64_t width, T* x_gradient, float* scale_gradient);
  // x, out [tokens, heads, 2 * half]; cos, sin [tokens, half]; direction -1 turns back. Products are rounded to T.
  void (*rotate)(const T* x, const T* cos, const T* sin, float direction, int64_t tokens, int64_t heads, int64_t half,
                 T* out);
  // gelu_tanh(gate) * up, the activation rounded to T.
  void (*gelu_gate)(const T* gate, const T* up, int64_t count, T* out);
  void (*gelu_gate_backward)(const T* gradient, const T* gate, const T* up, int64_t count, T* gate_gradient,
                             T* up_gradient);
  // Scores -> softmax weights in place, zero where hidden. Gives the log of the sum. `scratch` holds row.keys floats.
  float (*attention_weights)(const ScoreRow& row, T* scores, float* scratch);
  // Scores and the gradient of the weights -> weights and the gradient of the scores, in place.
  void (*attention_backward)(const ScoreRow& row, float log_sum, T* scores, T* gradient, float* scratch);
  // Logits -> softmax - onehot(target) in place when `gradient_wanted`. Gives -log softmax[target]. `scratch` holds
  // `vocabulary` floats, and is not touched when softcap is 0.
  double (*cross_entropy)(T* logits, int64_t vocabulary, int64_t target, float softcap, bool gradient_wanted,
                          float* scratch);
};

struct CpuKernels {
  const char* name;  // instruction set
  RowKernels<float> wide;
  RowKernels<Bf16> narrow;
  // in [rows, columns] with `stride` elements from row to row -> out [columns, rows], contiguous.
  void (*transpose)(const float* in, int64_t rows, int64_t columns, int64_t stride, float* out);
};

// Which matrix products this processor is fast at. A property of its model, not of a measurement at run time: the same
// machine must give the same bits each time.
struct ProductHabits {
  bool mkl_for_fp32 = false;       // LibTorch's own product (MKL) is faster than oneDNN's
  bool bf16_through_fp32 = false;  // bf16 widened, multiplied in fp32 and rounded is faster than a product in bf16
};
const ProductHabits& product_habits();

// The best ones that this processor can run.
const CpuKernels& cpu_kernels();

// All that it can run, the best last, by index; null past the end. For tests.
const CpuKernels* find_cpu_kernels(int index);

}  // namespace gemma_sft
