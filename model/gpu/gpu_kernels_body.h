// The table of model/gpu/gpu_kernels.h, made of the functions of row_functions.h and the platform's run_rows, run_parts
// and run_packs: which rows, how many lanes, how many values at once. Included by gpu_kernels.cu and
// gpu_kernels_host.cc.
#pragma once

#include "model/gpu/row_functions.h"

namespace gemma_sft {
namespace {

// Parts of the gradient of a norm's weight: enough teams to fill any chip, few enough for the sum over them. A narrow
// row is the work of a warp and not of a block, and its sums are short, so that there are more parts.
constexpr int64_t kPartsOfWideRows = 512;
constexpr int64_t kValuesOfAllParts = int64_t{1} << 20;
constexpr int kAdamWLanes = 256;
constexpr int64_t kAdamWElements = 16384;  // of a tensor that one team updates

inline int64_t parts_of(int64_t rows, int64_t width) {
  const int64_t narrow = kValuesOfAllParts / width, most = narrow > kPartsOfWideRows ? narrow : kPartsOfWideRows;
  return rows < most ? rows : most;
}

// A part for each row where nothing is summed over them.
inline int64_t parts_to_run(const float* weight_parts, int64_t rows, int64_t width) {
  return weight_parts == nullptr ? rows : parts_of(rows, width);
}

// Values of T that make up 16 bytes.
template <typename T>
constexpr int kPack = static_cast<int>(16 / sizeof(T));

inline bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

// True where rows of `width` values of T can be taken 16 bytes at a time from all of the pointers; null ones count.
template <typename T, typename... Pointers>
bool packs(int64_t width, Pointers... pointers) {
  return width % kPack<T> == 0 && (aligned(pointers) && ...);
}

template <int kValue>
struct Constant {
  static constexpr int value = kValue;
};

// body(Constant<P>) with P as many values as can be taken at once.
template <typename T, typename Body>
void with_pack(bool packed, const Body& body) {
  if (packed) {
    body(Constant<kPack<T>>());
  } else {
    body(Constant<1>());
  }
}

// body(Constant<lanes>) with enough lanes for a row of so many packs, and not many more.
template <typename Body>
void with_lanes(int64_t row_packs, const Body& body) {
  if (row_packs <= 128) {
    body(Constant<32>());
  } else if (row_packs <= 1024) {
    body(Constant<128>());
  } else {
    body(Constant<512>());
  }
}

template <int P, typename T>
struct NormRows {
  NormForward<T> given;
  template <typename AnyTeam>
  GEMMA_SFT_ROW void operator()(const AnyTeam& team, int64_t row) const {
    norm_row<P>(team, given, row);
  }
};

template <int P, typename T>
struct NormBackwardRows {
  NormBackward<T> given;
  int64_t parts;
  template <typename AnyTeam>
  GEMMA_SFT_ROW void operator()(const AnyTeam& team, int64_t part, float* sums) const {
    const int64_t end = (part + 1) * given.rows / parts;
    for (int64_t row = part * given.rows / parts; row < end; ++row) norm_backward_row<P>(team, given, row, sums);
  }
};

template <int P, typename T>
struct HeadRows {
  HeadForward<T> given;
  template <typename AnyTeam>
  GEMMA_SFT_ROW void operator()(const AnyTeam& team, int64_t row) const {
    head_row<P>(team, given, row);
  }
};

template <int P, typename T>
struct HeadBackwardRows {
  HeadBackward<T> given;
  int64_t parts;
  template <typename AnyTeam>
  GEMMA_SFT_ROW void operator()(const AnyTeam& team, int64_t part, float* sums) const {
    const int64_t rows = given.tokens * given.heads, end = (part + 1) * rows / parts;
    for (int64_t row = part * rows / parts; row < end; ++row) head_backward_row<P>(team, given, row, sums);
  }
};

struct ColumnSums {
  const float* parts;
  int64_t rows, width, span, pack;
  float* out;
  template <typename AnyTeam>
  GEMMA_SFT_ROW void operator()(const AnyTeam& team, int64_t place) const {
    sum_column(team, parts, rows, width, span, pack, place, out);
  }
};

template <int P, typename T>
struct GatePacks {
  const T *gate, *up;
  T* out;
  GEMMA_SFT_ROW void operator()(int64_t i) const { gate_pack<P>(gate, up, i, out); }
};

template <int P, typename T>
struct GateBackwardPacks {
  const T *gradient, *gate, *up;
  T *gate_gradient, *up_gradient;
  GEMMA_SFT_ROW void operator()(int64_t i) const {
    gate_backward_pack<P>(gradient, gate, up, i, gate_gradient, up_gradient);
  }
};

template <int P, typename T>
struct EmbeddingRows {
  EmbeddingForward<T> given;
  template <typename AnyTeam>
  GEMMA_SFT_ROW void operator()(const AnyTeam& team, int64_t token) const {
    embedding_row<P>(team, given, token);
  }
};

template <int P, typename T>
struct EmbeddingBackwardRows {
  EmbeddingBackward<T> given;
  template <typename AnyTeam>
  GEMMA_SFT_ROW void operator()(const AnyTeam& team, int64_t place) const {
    embedding_backward_row<P>(team, given, place);
  }
};

template <int P, typename T>
struct CrossEntropyOfRows {
  CrossEntropyRows<T> given;
  template <typename AnyTeam>
  GEMMA_SFT_ROW void operator()(const AnyTeam& team, int64_t row) const {
    cross_entropy_row<P>(team, given, row);
  }
};

template <typename T>
struct AttentionWeightsRows {
  ScoreBlock block;
  T* scores;
  float* log_sums;
  template <typename AnyTeam>
  GEMMA_SFT_ROW void operator()(const AnyTeam& team, int64_t row) const {
    attention_weights_row(team, block, row, scores, log_sums);
  }
};

template <typename T>
struct AttentionBackwardRows {
  ScoreBlock block;
  const float* log_sums;
  T *scores, *gradient;
  template <typename AnyTeam>
  GEMMA_SFT_ROW void operator()(const AnyTeam& team, int64_t row) const {
    attention_backward_row(team, block, row, log_sums, scores, gradient);
  }
};

// Blocks of kAdamWElements, tensor after tensor.
template <int P, typename T>
struct AdamWBlocks {
  AdamWUpdate update;
  template <typename AnyTeam>
  GEMMA_SFT_ROW void operator()(const AnyTeam& team, int64_t block) const {
    if (update.skip != nullptr && *update.skip == 1.0f) return;
    int which = 0;
    int64_t first = 0;
    for (; which + 1 < update.count; ++which) {
      const int64_t blocks = (update.tensors[which].count + kAdamWElements - 1) / kAdamWElements;
      if (block < first + blocks) break;
      first += blocks;
    }
    const AdamWTensor& tensor = update.tensors[which];
    const int64_t begin = (block - first) * kAdamWElements;
    const int64_t end = begin + kAdamWElements < tensor.count ? begin + kAdamWElements : tensor.count;
    const AdamWFactors factors = team.share([&] { return adamw_factors(update, tensor); });
    const int64_t whole = (end - begin) / P;
    team.each(whole, [&](int64_t i) { adamw_pack<P, T>(update, tensor, factors, begin + i * P); });
    team.each(end - begin - whole * P,
              [&](int64_t i) { adamw_pack<1, T>(update, tensor, factors, begin + whole * P + i); });
  }
};

// The more parts there are, the more lanes sum them.
inline void finish_weight_gradient(const ColumnSums& sums, GpuStream stream) {
  if (sums.parts == nullptr) return;
  with_lanes(sums.rows / 4, [&](auto lanes) { run_rows<decltype(lanes)::value>(stream, sums.width, sums); });
}

template <typename T>
struct Launch {
  static void norm(const NormForward<T>& given, GpuStream stream) {
    const bool packed = packs<T>(given.width, given.x, given.residual, given.weight.data, given.sum, given.out);
    with_pack<T>(packed, [&](auto pack) {
      constexpr int P = decltype(pack)::value;
      with_lanes(given.width / P,
                 [&](auto lanes) { run_rows<decltype(lanes)::value>(stream, given.rows, NormRows<P, T>{given}); });
    });
  }

  static void norm_backward(const NormBackward<T>& given, GpuStream stream) {
    const bool packed = packs<T>(given.width, given.gradient, given.sum_gradient, given.x, given.weight.data,
                                 given.x_gradient, given.weight_parts);
    const int64_t parts = parts_to_run(given.weight_parts, given.rows, given.width);
    with_pack<T>(packed, [&](auto pack) {
      constexpr int P = decltype(pack)::value;
      with_lanes(given.width / P, [&](auto lanes) {
        run_parts<decltype(lanes)::value>(stream, parts, given.width, given.weight_parts,
                                          NormBackwardRows<P, T>{given, parts});
      });
      finish_weight_gradient({given.weight_parts, parts, given.width, given.width, P, given.weight_gradient}, stream);
    });
  }

  static void head(const HeadForward<T>& given, GpuStream stream) {
    const bool packed = packs<T>(given.half, given.x, given.weight.data, given.cos, given.sin, given.out);
    with_pack<T>(packed, [&](auto pack) {
      constexpr int P = decltype(pack)::value;
      run_rows<32>(stream, given.tokens * given.heads, HeadRows<P, T>{given});
    });
  }

  static void head_backward(const HeadBackward<T>& given, GpuStream stream) {
    const bool packed = packs<T>(given.half, given.gradient, given.x, given.weight.data, given.cos, given.sin,
                                 given.x_gradient, given.weight_parts);
    const int64_t width = 2 * given.half, parts = parts_to_run(given.weight_parts, given.tokens * given.heads, width);
    with_pack<T>(packed, [&](auto pack) {
      constexpr int P = decltype(pack)::value;
      run_parts<32>(stream, parts, width, given.weight_parts, HeadBackwardRows<P, T>{given, parts});
      finish_weight_gradient({given.weight_parts, parts, width, given.half, P, given.weight_gradient}, stream);
    });
  }

  static void gate(const T* gate, const T* up, int64_t count, T* out, GpuStream stream) {
    with_pack<T>(packs<T>(count, gate, up, out), [&](auto pack) {
      constexpr int P = decltype(pack)::value;
      run_packs(stream, count / P, GatePacks<P, T>{gate, up, out});
    });
  }

  static void gate_backward(const T* gradient, const T* gate, const T* up, int64_t count, T* gate_gradient,
                            T* up_gradient, GpuStream stream) {
    with_pack<T>(packs<T>(count, gradient, gate, up, gate_gradient, up_gradient), [&](auto pack) {
      constexpr int P = decltype(pack)::value;
      run_packs(stream, count / P, GateBackwardPacks<P, T>{gradient, gate, up, gate_gradient, up_gradient});
    });
  }

  static void embedding(const EmbeddingForward<T>& given, GpuStream stream) {
    with_pack<T>(packs<T>(given.width, given.weight.data, given.out), [&](auto pack) {
      constexpr int P = decltype(pack)::value;
      with_lanes(given.width / P, [&](auto lanes) {
        run_rows<decltype(lanes)::value>(stream, given.tokens, EmbeddingRows<P, T>{given});
      });
    });
  }

  static void embedding_backward(const EmbeddingBackward<T>& given, GpuStream stream) {
    with_pack<T>(packs<T>(given.width, given.gradient, static_cast<const void*>(given.total.data)), [&](auto pack) {
      constexpr int P = decltype(pack)::value;
      with_lanes(given.width / P, [&](auto lanes) {
        run_rows<decltype(lanes)::value>(stream, given.tokens, EmbeddingBackwardRows<P, T>{given});
      });
    });
  }

  static void cross_entropy(const CrossEntropyRows<T>& given, GpuStream stream) {
    with_pack<T>(packs<T>(given.vocabulary, given.logits), [&](auto pack) {
      constexpr int P = decltype(pack)::value;
      run_rows<512>(stream, given.rows, CrossEntropyOfRows<P, T>{given});
    });
  }

  static void attention_weights(const ScoreBlock& block, T* scores, float* log_sums, GpuStream stream) {
    with_lanes(block.keys / 2, [&](auto lanes) {
      run_rows<decltype(lanes)::value>(stream, block.stacks * block.rows,
                                       AttentionWeightsRows<T>{block, scores, log_sums});
    });
  }

  static void attention_backward(const ScoreBlock& block, const float* log_sums, T* scores, T* gradient,
                                 GpuStream stream) {
    with_lanes(block.keys / 2, [&](auto lanes) {
      run_rows<decltype(lanes)::value>(stream, block.stacks * block.rows,
                                       AttentionBackwardRows<T>{block, log_sums, scores, gradient});
    });
  }

  static void adamw(const AdamWUpdate& update, GpuStream stream) {
    int64_t blocks = 0;
    bool packed = true;
    for (int i = 0; i < update.count; ++i) {
      const AdamWTensor& tensor = update.tensors[i];
      blocks += (tensor.count + kAdamWElements - 1) / kAdamWElements;
      packed = packed && aligned(tensor.weight) && aligned(tensor.gradient) && aligned(tensor.mean) &&
               aligned(tensor.square);
    }
    with_pack<T>(packed, [&](auto pack) {
      constexpr int P = decltype(pack)::value;
      run_rows<kAdamWLanes>(stream, blocks, AdamWBlocks<P, T>{update});
    });
  }

  static constexpr GpuRowKernels<T> table() {
    return {norm,
            norm_backward,
            head,
            head_backward,
            gate,
            gate_backward,
            embedding,
            embedding_backward,
            cross_entropy,
            attention_weights,
            attention_backward,
            adamw};
  }
};

constexpr GpuKernels make_table(const char* name) {
  return {name, Launch<float>::table(), Launch<Bf16>::table(), parts_of};
}

}  // namespace
}  // namespace gemma_sft
