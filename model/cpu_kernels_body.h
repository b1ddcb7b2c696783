// The kernels of cpu_kernels.h, compiled once per instruction set: cpu_kernels_<set>.cc defines GEMMA_SFT_CPU_KERNELS,
// the name of the function that gives them, GEMMA_SFT_CPU_SET, and GEMMA_SFT_CPU_LANES, the floats of one register
// (wider vectors are taken apart badly), and includes this file. No header with inline functions may be included here:
// the linker keeps one copy of such a function for the whole program, and it could keep the one made for a newer
// processor.
#include "model/cpu_kernels.h"

namespace gemma_sft {
namespace {

using Size = __SIZE_TYPE__;
constexpr int kLanes = GEMMA_SFT_CPU_LANES;
using Floats = float __attribute__((vector_size(4 * kLanes)));
using Ints = int32_t __attribute__((vector_size(4 * kLanes)));
using Unsigned = uint32_t __attribute__((vector_size(4 * kLanes)));
using Shorts = uint16_t __attribute__((vector_size(2 * kLanes)));

#define GEMMA_SFT_INLINE inline __attribute__((always_inline))

GEMMA_SFT_INLINE Floats all(float value) { return Floats{} + value; }

template <typename To, typename From>
GEMMA_SFT_INLINE To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof(To));
  return to;
}

GEMMA_SFT_INLINE Floats widen(Shorts bits) { return bits_as<Floats>(__builtin_convertvector(bits, Unsigned) << 16); }

// To nearest, ties to even; NaN stays NaN.
GEMMA_SFT_INLINE Shorts narrow(Floats value) {
  const Unsigned bits = bits_as<Unsigned>(value);
  const Unsigned rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Unsigned quiet = (bits >> 16) | 0x40;
  return __builtin_convertvector((value == value) ? rounded : quiet, Shorts);
}

GEMMA_SFT_INLINE Floats load(const float* from) {
  Floats value;
  __builtin_memcpy(&value, from, sizeof(value));
  return value;
}
GEMMA_SFT_INLINE Floats load(const Bf16* from) {
  Shorts bits;
  __builtin_memcpy(&bits, from, sizeof(bits));
  return widen(bits);
}
GEMMA_SFT_INLINE void store(float* to, Floats value) { __builtin_memcpy(to, &value, sizeof(value)); }
GEMMA_SFT_INLINE void store(Bf16* to, Floats value) {
  const Shorts bits = narrow(value);
  __builtin_memcpy(to, &bits, sizeof(bits));
}

// The first `count` lanes; the others are `rest`.
GEMMA_SFT_INLINE Floats load_some(const float* from, int64_t count, float rest) {
  Floats value = all(rest);
  __builtin_memcpy(&value, from, static_cast<Size>(count) * sizeof(float));
  return value;
}
GEMMA_SFT_INLINE Floats load_some(const Bf16* from, int64_t count, float rest) {
  Shorts bits = narrow(all(rest));
  __builtin_memcpy(&bits, from, static_cast<Size>(count) * sizeof(Bf16));
  return widen(bits);
}
GEMMA_SFT_INLINE void store_some(float* to, Floats value, int64_t count) {
  __builtin_memcpy(to, &value, static_cast<Size>(count) * sizeof(float));
}
GEMMA_SFT_INLINE void store_some(Bf16* to, Floats value, int64_t count) {
  const Shorts bits = narrow(value);
  __builtin_memcpy(to, &bits, static_cast<Size>(count) * sizeof(Bf16));
}

// What storing as T and loading again gives.
GEMMA_SFT_INLINE Floats rounded_to(float, Floats value) { return value; }
GEMMA_SFT_INLINE Floats rounded_to(Bf16, Floats value) { return widen(narrow(value)); }

// body(index, lanes) for all of [0, count); `lanes` is less than kLanes only at the end.
template <typename Body>
GEMMA_SFT_INLINE void for_each_block(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i, kLanes);
  if (i < count) body(i, static_cast<int>(count - i));
}

template <typename T>
GEMMA_SFT_INLINE Floats load_block(const T* from, int lanes, float rest = 0.0f) {
  return lanes == kLanes ? load(from) : load_some(from, lanes, rest);
}
template <typename T>
GEMMA_SFT_INLINE void store_block(T* to, Floats value, int lanes) {
  if (lanes == kLanes) {
    store(to, value);
  } else {
    store_some(to, value, lanes);
  }
}

GEMMA_SFT_INLINE Floats first_lanes(Floats value, int lanes, float rest) {
  if (lanes == kLanes) return value;
  Floats result = all(rest);
  __builtin_memcpy(&result, &value, static_cast<Size>(lanes) * sizeof(float));
  return result;
}

// Halves added to halves.
GEMMA_SFT_INLINE float sum_of(Floats value) {
  float lanes[kLanes];
  store(lanes, value);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}
GEMMA_SFT_INLINE float max_of(Floats value) {
  float lanes[kLanes];
  store(lanes, value);
  float most = lanes[0];
  for (int i = 1; i < kLanes; ++i) most = lanes[i] > most ? lanes[i] : most;
  return most;
}
GEMMA_SFT_INLINE Floats larger(Floats a, Floats b) { return a > b ? a : b; }

// exp, about one unit in the last place; NaN stays NaN; clamped to the range of fp32.
GEMMA_SFT_INLINE Floats exp(Floats x) {
  x = x < -87.0f ? all(-87.0f) : x;
  x = x > 88.0f ? all(88.0f) : x;
  // x = n ln2 + r with |r| <= ln2 / 2; adding 1.5 * 2^23 rounds to a whole number.
  const Floats n = (x * 1.44269504088896341f + 12582912.0f) - 12582912.0f;
  const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  // The series of exp; its next term is below 1e-8 at the end of the range.
  Floats sum = all(1.0f / 5040);
  sum = sum * r + 1.0f / 720;
  sum = sum * r + 1.0f / 120;
  sum = sum * r + 1.0f / 24;
  sum = sum * r + 1.0f / 6;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  const Floats power = bits_as<Floats>((__builtin_convertvector(n, Ints) + 127) << 23);
  return sum * power;
}

// tanh: near zero by its continued fraction x / (1 + x^2 / (3 + x^2 / (5 + ...))), elsewhere from exp.
GEMMA_SFT_INLINE Floats tanh(Floats x) {
  const Floats magnitude = x < 0.0f ? -x : x;
  const Floats square = x * x;
  const Floats near = x * ((square + 105.0f) * square + 945.0f) / ((15.0f * square + 420.0f) * square + 945.0f);
  const Floats far = 1.0f - 2.0f / (exp(magnitude + magnitude) + 1.0f);
  return magnitude < 0.625f ? near : (x < 0.0f ? -far : far);
}

template <typename T>
void rms_norm(const T* x, const float* scale, float eps, int64_t rows, int64_t width, T* out, float* inverse) {
  for (int64_t row = 0; row < rows; ++row, x += width, out += width) {
    Floats squares = all(0);
    for_each_block(width, [&](int64_t i, int lanes) {
      const Floats value = load_block(x + i, lanes);
      squares += value * value;
    });
    const float factor = 1.0f / __builtin_sqrtf(sum_of(squares) / static_cast<float>(width) + eps);
    inverse[row] = factor;
    for_each_block(width, [&](int64_t i, int lanes) {
      store_block(out + i, load_block(x + i, lanes) * factor * load_block(scale + i, lanes), lanes);
    });
  }
}

template <typename T>
void rms_norm_backward(const T* gradient, const T* x, const float* inverse, const float* scale, int64_t rows,
                       int64_t width, T* x_gradient, float* scale_gradient) {
  for (int64_t row = 0; row < rows; ++row, gradient += width, x += width) {
    const float factor = inverse[row];
    Floats products = all(0);
    for_each_block(width, [&](int64_t i, int lanes) {
      const Floats unit = load_block(x + i, lanes) * factor;
      const Floats along = load_block(gradient + i, lanes) * unit;
      products += along * load_block(scale + i, lanes);
      if (scale_gradient != nullptr) {
        store_block(scale_gradient + i, load_block(scale_gradient + i, lanes) + along, lanes);
      }
    });
    if (x_gradient == nullptr) continue;
    const float mean = sum_of(products) / static_cast<float>(width);
    for_each_block(width, [&](int64_t i, int lanes) {
      const Floats unit = load_block(x + i, lanes) * factor;
      const Floats unit_gradient = load_block(gradient + i, lanes) * load_block(scale + i, lanes);
      store_block(x_gradient + i, (unit_gradient - unit * mean) * factor, lanes);
    });
    x_gradient += width;
  }
}

template <typename T>
void rotate(const T* x, const T* cos, const T* sin, float direction, int64_t tokens, int64_t heads, int64_t half,
            T* out) {
  for (int64_t token = 0; token < tokens; ++token, cos += half, sin += half) {
    for (int64_t head = 0; head < heads; ++head, x += 2 * half, out += 2 * half) {
      for_each_block(half, [&](int64_t i, int lanes) {
        const Floats first = load_block(x + i, lanes), second = load_block(x + half + i, lanes);
        const Floats c = load_block(cos + i, lanes), s = load_block(sin + i, lanes) * direction;
        store_block(out + i, rounded_to(T{}, first * c) - rounded_to(T{}, second * s), lanes);
        store_block(out + half + i, rounded_to(T{}, second * c) + rounded_to(T{}, first * s), lanes);
      });
    }
  }
}

struct Gelu {
  Floats value, slope;
};

// 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) and its derivative.
GEMMA_SFT_INLINE Gelu gelu(Floats x) {
  constexpr float kRoot = 0.79788456080286536f, kCubic = 0.044715f;
  const Floats square = x * x;
  const Floats t = tanh(kRoot * (x + kCubic * x * square));
  const Floats half = 0.5f * (1.0f + t);
  return {x * half, half + 0.5f * x * (1.0f - t * t) * kRoot * (1.0f + 3.0f * kCubic * square)};
}

template <typename T>
void gelu_gate(const T* gate, const T* up, int64_t count, T* out) {
  for_each_block(count, [&](int64_t i, int lanes) {
    store_block(out + i, rounded_to(T{}, gelu(load_block(gate + i, lanes)).value) * load_block(up + i, lanes), lanes);
  });
}

template <typename T>
void gelu_gate_backward(const T* gradient, const T* gate, const T* up, int64_t count, T* gate_gradient,
                        T* up_gradient) {
  for_each_block(count, [&](int64_t i, int lanes) {
    const Gelu made = gelu(load_block(gate + i, lanes));
    const Floats given = load_block(gradient + i, lanes);
    store_block(up_gradient + i, given * rounded_to(T{}, made.value), lanes);
    store_block(gate_gradient + i, rounded_to(T{}, given * load_block(up + i, lanes)) * made.slope, lanes);
  });
}

template <typename T>
void clear(T* row, int64_t from, int64_t to) {
  if (to > from) __builtin_memset(row + from, 0, static_cast<Size>(to - from) * sizeof(T));
}

template <typename T>
float attention_weights(const ScoreRow& row, T* scores, float* scratch) {
  constexpr float kLowest = -__builtin_inff();
  T* visible = scores + row.first;
  const int64_t count = row.last - row.first;
  Floats most = all(kLowest);
  for_each_block(count, [&](int64_t i, int lanes) {
    Floats value = load_block(visible + i, lanes) * row.scale;
    if (row.softcap > 0) value = row.softcap * tanh(value / row.softcap);
    most = larger(first_lanes(value, lanes, kLowest), most);
    store_block(scratch + i, value, lanes);
  });
  const float highest = max_of(most);
  Floats sums = all(0);
  for_each_block(count, [&](int64_t i, int lanes) {
    const Floats value = exp(load_block(scratch + i, lanes) - highest);
    store_block(scratch + i, value, lanes);
    sums += first_lanes(value, lanes, 0);
  });
  const float sum = sum_of(sums), factor = 1.0f / sum;
  for_each_block(
      count, [&](int64_t i, int lanes) { store_block(visible + i, load_block(scratch + i, lanes) * factor, lanes); });
  clear(scores, 0, row.first);
  clear(scores, row.last, row.keys);
  return highest + __builtin_logf(sum);
}

template <typename T>
void attention_backward(const ScoreRow& row, float log_sum, T* scores, T* gradient, float* scratch) {
  T* visible = scores + row.first;
  T* weights_gradient = gradient + row.first;
  const int64_t count = row.last - row.first;
  Floats products = all(0);
  for_each_block(count, [&](int64_t i, int lanes) {
    const Floats raw = load_block(visible + i, lanes) * row.scale;
    Floats value = raw, slope = all(row.scale);
    if (row.softcap > 0) {
      const Floats t = tanh(raw / row.softcap);
      value = row.softcap * t;
      slope = row.scale * (1.0f - t * t);
    }
    const Floats weight = exp(value - log_sum);
    products += weight * load_block(weights_gradient + i, lanes);  // lanes past the end: zero gradient
    store_block(scratch + i, weight * slope, lanes);
    store_block(visible + i, weight, lanes);
  });
  const float along = sum_of(products);
  for_each_block(count, [&](int64_t i, int lanes) {
    const Floats given = load_block(weights_gradient + i, lanes);
    store_block(weights_gradient + i, load_block(scratch + i, lanes) * (given - along), lanes);
  });
  clear(scores, 0, row.first);
  clear(scores, row.last, row.keys);
  clear(gradient, 0, row.first);
  clear(gradient, row.last, row.keys);
}

// The sum of exp(values - highest) in fp64 over pieces that fp32 sums well.
template <typename T>
double sum_of_exponentials(const T* values, int64_t count, float highest) {
  constexpr int64_t kPiece = 64 * kLanes;
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kPiece) {
    const int64_t length = count - begin < kPiece ? count - begin : kPiece;
    Floats sums = all(0);
    for_each_block(length, [&](int64_t i, int lanes) {
      sums += first_lanes(exp(load_block(values + begin + i, lanes) - highest), lanes, 0);
    });
    total += sum_of(sums);
  }
  return total;
}

// values: the capped logits; logits: where the gradient goes.
template <typename T, typename V>
double cross_entropy_of(const V* values, T* logits, int64_t vocabulary, int64_t target, float softcap,
                        bool gradient_wanted) {
  Floats most = all(-__builtin_inff());
  for_each_block(vocabulary,
                 [&](int64_t i, int lanes) { most = larger(load_block(values + i, lanes, -__builtin_inff()), most); });
  const float highest = max_of(most);
  const double log_sum = static_cast<double>(highest) + __builtin_log(sum_of_exponentials(values, vocabulary, highest));
  V lone[1];
  __builtin_memcpy(lone, values + target, sizeof(V));
  const float picked = load_some(lone, 1, 0)[0];
  if (gradient_wanted) {
    const float shift = static_cast<float>(log_sum);
    const float square = softcap > 0 ? 1.0f / (softcap * softcap) : 0.0f;
    const float target_weight = exp(all(picked) - shift)[0];
    for_each_block(vocabulary, [&](int64_t i, int lanes) {
      const Floats value = load_block(values + i, lanes);
      store_block(logits + i, exp(value - shift) * (1.0f - value * value * square), lanes);
    });
    store_some(logits + target, all((target_weight - 1.0f) * (1.0f - picked * picked * square)), 1);
  }
  return log_sum - static_cast<double>(picked);
}

template <typename T>
double cross_entropy(T* logits, int64_t vocabulary, int64_t target, float softcap, bool gradient_wanted,
                     float* scratch) {
  if (softcap <= 0) return cross_entropy_of(logits, logits, vocabulary, target, softcap, gradient_wanted);
  for_each_block(vocabulary, [&](int64_t i, int lanes) {
    store_block(scratch + i, softcap * tanh(load_block(logits + i, lanes) / softcap), lanes);
  });
  return cross_entropy_of(scratch, logits, vocabulary, target, softcap, gradient_wanted);
}

// Squares of 16 x 16: reads and writes whole cache lines.
void transpose(const float* in, int64_t rows, int64_t columns, int64_t stride, float* out) {
  constexpr int64_t kSide = 16;
  for (int64_t row = 0; row < rows; row += kSide) {
    const int64_t high = rows - row < kSide ? rows - row : kSide;
    for (int64_t column = 0; column < columns; column += kSide) {
      const int64_t wide = columns - column < kSide ? columns - column : kSide;
      float square[kSide][kSide];
      for (int64_t i = 0; i < high; ++i) {
        __builtin_memcpy(square[i], in + (row + i) * stride + column, static_cast<Size>(wide) * sizeof(float));
      }
      for (int64_t j = 0; j < wide; ++j) {
        float* line = out + (column + j) * rows + row;
        for (int64_t i = 0; i < high; ++i) line[i] = square[i][j];
      }
    }
  }
}

template <typename T>
constexpr RowKernels<T> row_kernels() {
  return {rms_norm<T>,          rms_norm_backward<T>,  rotate<T>,       gelu_gate<T>, gelu_gate_backward<T>,
          attention_weights<T>, attention_backward<T>, cross_entropy<T>};
}

}  // namespace

CpuKernels GEMMA_SFT_CPU_KERNELS() { return {GEMMA_SFT_CPU_SET, row_kernels<float>(), row_kernels<Bf16>(), transpose}; }

}  // namespace gemma_sft
