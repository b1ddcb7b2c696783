// Fused kernels for a GPU: what the model does between matrix products, each in one launch where LibTorch's operators
// would take several passes over memory. Plain pointers and a stream; no torch and no CUDA header, so that everything
// may include this. Two tables with the same arithmetic (model/gpu/row_functions.h): gpu_kernels.cu runs it on the GPU,
// gpu_kernels_host.cc on the CPU, lane by lane in the same order, for the tests and for what no other CPU code does.
//
// All arithmetic is fp32; T is the dtype in memory. No kernel uses atomics: the same input gives the same bits. Nothing
// here waits for the device or allocates. Pointers are device memory for the GPU's table and host memory for the other.
#pragma once

#include <cstdint>

#include "model/cpu_kernels.h"  // Bf16

namespace gemma_sft {

using GpuStream = void*;  // a cudaStream_t; the host's table ignores it

// Values in either dtype, where a kernel's T is another one's: a weight in its storage dtype.
struct Values {
  const void* data = nullptr;
  bool narrow = false;  // bf16, else fp32
};
struct MutableValues {
  void* data = nullptr;
  bool narrow = false;
};

template <typename T>
struct NormForward {
  const T* x;         // [rows, width]
  const T* residual;  // added to x first, the sum rounded to T; or null
  Values weight;      // [width]; the scale is 1 + weight
  float epsilon;
  int64_t rows, width;
  T* sum;          // x + residual; null without a residual
  T* out;          // sum / sqrt(mean(sum^2) + epsilon) * (1 + weight)
  float* inverse;  // [rows], 1 / sqrt(...)
};

template <typename T>
struct NormBackward {
  const T* gradient;      // of out
  const T* sum_gradient;  // of sum, added to the gradient of x; or null
  const T* x;             // what was normalised: sum where there was a residual
  const float* inverse;
  Values weight;
  int64_t rows, width;
  T* x_gradient;           // or null
  float* weight_parts;     // [parts(rows, width), width] scratch, or null
  float* weight_gradient;  // [width]; null when weight_parts is
};

// Optional norm of each head, then rotary embedding: x [tokens, heads, 2 * half].
template <typename T>
struct HeadForward {
  const T* x;
  Values weight;  // [2 * half]; without data there is no norm
  float epsilon;
  const T* cos;  // [tokens, half]
  const T* sin;
  int64_t tokens, heads, half;
  T* out;
  float* inverse;  // [tokens * heads]; null without norm
};

template <typename T>
struct HeadBackward {
  const T* gradient;
  const T* x;  // before the norm; not read without one
  const float* inverse;
  Values weight;
  const T* cos;
  const T* sin;
  int64_t tokens, heads, half;
  T* x_gradient;
  float* weight_parts;  // as in NormBackward
  float* weight_gradient;
};

template <typename T>
struct EmbeddingForward {
  const int64_t* ids;  // [tokens]
  Values weight;       // [vocabulary, width]
  float scale;         // multiplied after the row is rounded to T
  int64_t tokens, width;
  T* out;
};

template <typename T>
struct EmbeddingBackward {
  const T* gradient;          // [tokens, width]
  const int64_t* sorted_ids;  // ascending
  const int64_t* order;       // the token that sorted_ids[i] stands at; of equal ids in ascending order
  float scale;
  int64_t tokens, width, pad_id;
  MutableValues total;  // [vocabulary, width]; the rows' sums are added to it, pad_id's is not
};

template <typename T>
struct CrossEntropyRows {
  T* logits;  // [rows, vocabulary] -> softmax - onehot(target), times the cap's slope
  const int64_t* targets;
  int64_t rows, vocabulary;
  float softcap;  // 0: none
  bool gradient_wanted;
  double* losses;  // [rows]
};

// The scores of a block of queries: [stacks, rows, keys]. Row r is query r / group and sees the keys
// [max(0, last - window), last) with last = first_last + r / group.
struct ScoreBlock {
  int64_t stacks, rows, keys, group, first_last;
  int64_t window;  // 0: none
  float scale;
  float softcap;               // 0: none
  int64_t log_sum_stride = 0;  // floats from one stack's log sums to the next one's
};

// The update of trainer/optimizer.h; T is the dtype of weight, gradient and moments.
struct AdamWTensor {
  void* weight;
  const void* gradient;
  void* mean;
  void* square;
  const float* step;  // updates made, this one included
  int64_t count;
  double weight_decay;
  uint64_t random_key;  // of the tensor and the step; for stochastic rounding
};
struct AdamWUpdate {
  static constexpr int kMostTensors = 32;  // of one launch: they travel as arguments of the kernel
  AdamWTensor tensors[kMostTensors];
  int count = 0;
  double rate = 0, beta1 = 0, beta2 = 0, epsilon = 0;
  const float* divisor = nullptr;  // gradients are divided by it
  const float* skip = nullptr;     // 1: nothing is changed; or null
  bool stochastic = false;         // bf16 weights are rounded up or down at random, right on average
};

template <typename T>
struct GpuRowKernels {
  void (*norm)(const NormForward<T>&, GpuStream);
  void (*norm_backward)(const NormBackward<T>&, GpuStream);
  void (*head)(const HeadForward<T>&, GpuStream);
  void (*head_backward)(const HeadBackward<T>&, GpuStream);
  // gelu_tanh(gate) * up, the activation rounded to T.
  void (*gate)(const T* gate, const T* up, int64_t count, T* out, GpuStream);
  void (*gate_backward)(const T* gradient, const T* gate, const T* up, int64_t count, T* gate_gradient, T* up_gradient,
                        GpuStream);
  void (*embedding)(const EmbeddingForward<T>&, GpuStream);
  void (*embedding_backward)(const EmbeddingBackward<T>&, GpuStream);
  void (*cross_entropy)(const CrossEntropyRows<T>&, GpuStream);
  // Scores -> softmax weights in place, zero where hidden; log_sums is written.
  void (*attention_weights)(const ScoreBlock&, T* scores, float* log_sums, GpuStream);
  // Scores and the gradient of the weights -> weights and the gradient of the scores, in place.
  void (*attention_backward)(const ScoreBlock&, const float* log_sums, T* scores, T* gradient, GpuStream);
  void (*adamw)(const AdamWUpdate&, GpuStream);
};

struct GpuKernels {
  const char* name;
  GpuRowKernels<float> wide;
  GpuRowKernels<Bf16> narrow;
  // Rows of the scratch that norm_backward and head_backward need for so many rows of x of that width.
  int64_t (*parts)(int64_t rows, int64_t width);
};

// Null in a build without CUDA (twin files gpu_kernels.cu and gpu_kernels_none.cc).
const GpuKernels* find_cuda_kernels();
const GpuKernels& host_gpu_kernels();

}  // namespace gemma_sft
