// The arithmetic of the GPU kernels, written once for both tables of model/gpu/gpu_kernels.h. Included by
// gpu_kernels.cu after gpu_platform_cuda.h and by gpu_kernels_host.cc after gpu_platform_host.h, which define
//   GEMMA_SFT_ROW               what stands before a function
//   load<P>(from), store<P>(to, pack)   P values at once, fp32 in registers
//   rounded<T>(value)           what storing as T and loading again gives
//   bits_of(value), narrowed(value)     the bits of a float; the nearest bf16
//   Team                        the lanes that share a row:
//     each(count, body)           body(i) for all of [0, count), each lane its own i, the same i in each call
//     sum(count, body)            the sum of body(i), the same in all lanes
//     join(count, start, body, merge)   the same with any value and merge
//     share(body)                 what one lane's body() gives, in all lanes
// Where rows and pointers allow, P values make up 16 bytes; else P is 1. A body may read what another lane writes only
// across a sum, a join or a share.
#pragma once

#include "model/gpu/gpu_kernels.h"

namespace gemma_sft {
namespace {

template <int P>
struct Pack {
  float at[P];
};

template <int P>
GEMMA_SFT_ROW Pack<P> load_values(const Values& values, int64_t i) {
  return values.narrow ? load<P>(static_cast<const Bf16*>(values.data) + i)
                       : load<P>(static_cast<const float*>(values.data) + i);
}

// ---- norm ----------------------------------------------------------------------------------------------------------
template <int P, typename T, typename Team>
GEMMA_SFT_ROW void norm_row(const Team& team, const NormForward<T>& given, int64_t row) {
  const int64_t place = row * given.width, packs = given.width / P;
  const T* x = given.x + place;
  const float squares = team.sum(packs, [&](int64_t i) {
    Pack<P> value = load<P>(x + i * P);
    if (given.residual != nullptr) {
      const Pack<P> added = load<P>(given.residual + place + i * P);
      for (int k = 0; k < P; ++k) value.at[k] = rounded<T>(value.at[k] + added.at[k]);
      store<P>(given.sum + place + i * P, value);
    }
    float sum = 0;
    for (int k = 0; k < P; ++k) sum += value.at[k] * value.at[k];
    return sum;
  });
  const float inverse = 1.0f / sqrtf(squares / static_cast<float>(given.width) + given.epsilon);
  const T* normed = given.residual != nullptr ? given.sum + place : x;
  team.each(packs, [&](int64_t i) {
    Pack<P> value = load<P>(normed + i * P);
    const Pack<P> weight = load_values<P>(given.weight, i * P);
    for (int k = 0; k < P; ++k) value.at[k] = value.at[k] * inverse * (1.0f + weight.at[k]);
    store<P>(given.out + place + i * P, value);
  });
  team.each(1, [&](int64_t) { given.inverse[row] = inverse; });
}

// `sums` [width] is added to, or null; sum_column says which column lies where.
template <int P, typename T, typename Team>
GEMMA_SFT_ROW void norm_backward_row(const Team& team, const NormBackward<T>& given, int64_t row, float* sums) {
  const int64_t place = row * given.width, packs = given.width / P;
  const float inverse = given.inverse[row];
  const float along = team.sum(packs, [&](int64_t i) {
    const Pack<P> x = load<P>(given.x + place + i * P), gradient = load<P>(given.gradient + place + i * P);
    const Pack<P> weight = load_values<P>(given.weight, i * P);
    float sum = 0;
    for (int k = 0; k < P; ++k) {
      const float product = gradient.at[k] * (x.at[k] * inverse);
      if (sums != nullptr) sums[k * packs + i] += product;
      sum += product * (1.0f + weight.at[k]);
    }
    return sum;
  });
  if (given.x_gradient == nullptr) return;
  const float mean = along / static_cast<float>(given.width);
  team.each(packs, [&](int64_t i) {
    const Pack<P> x = load<P>(given.x + place + i * P), gradient = load<P>(given.gradient + place + i * P);
    const Pack<P> weight = load_values<P>(given.weight, i * P);
    Pack<P> result;
    for (int k = 0; k < P; ++k) {
      result.at[k] = (gradient.at[k] * (1.0f + weight.at[k]) - x.at[k] * inverse * mean) * inverse;
    }
    if (given.sum_gradient != nullptr) {
      const Pack<P> added = load<P>(given.sum_gradient + place + i * P);
      for (int k = 0; k < P; ++k) result.at[k] = rounded<T>(result.at[k]) + added.at[k];
    }
    store<P>(given.x_gradient + place + i * P, result);
  });
}

// ---- norm of a head and rotary embedding ----------------------------------------------------------------------------
// Each product is rounded to T before the sum, as transformers does.
template <typename T>
GEMMA_SFT_ROW float turned(float along, float cosine, float across, float sine) {
  return rounded<T>(along * cosine) + rounded<T>(across * sine);
}

template <int P, typename T, typename Team>
GEMMA_SFT_ROW void head_row(const Team& team, const HeadForward<T>& given, int64_t row) {
  const int64_t half = given.half, packs = half / P;
  const T* x = given.x + row * 2 * half;
  T* out = given.out + row * 2 * half;
  const int64_t token = row / given.heads;
  const bool norms = given.weight.data != nullptr;
  float inverse = 1.0f;
  if (norms) {
    const float squares = team.sum(2 * packs, [&](int64_t i) {
      const Pack<P> value = load<P>(x + i * P);
      float sum = 0;
      for (int k = 0; k < P; ++k) sum += value.at[k] * value.at[k];
      return sum;
    });
    inverse = 1.0f / sqrtf(squares / static_cast<float>(2 * half) + given.epsilon);
    team.each(1, [&](int64_t) { given.inverse[row] = inverse; });
  }
  team.each(packs, [&](int64_t i) {
    Pack<P> first = load<P>(x + i * P), second = load<P>(x + half + i * P);
    if (norms) {
      const Pack<P> a = load_values<P>(given.weight, i * P), b = load_values<P>(given.weight, half + i * P);
      for (int k = 0; k < P; ++k) {
        first.at[k] = rounded<T>(first.at[k] * inverse * (1.0f + a.at[k]));
        second.at[k] = rounded<T>(second.at[k] * inverse * (1.0f + b.at[k]));
      }
    }
    const Pack<P> cosine = load<P>(given.cos + token * half + i * P), sine = load<P>(given.sin + token * half + i * P);
    Pack<P> low, high;
    for (int k = 0; k < P; ++k) {
      low.at[k] = turned<T>(first.at[k], cosine.at[k], second.at[k], -sine.at[k]);
      high.at[k] = turned<T>(second.at[k], cosine.at[k], first.at[k], sine.at[k]);
    }
    store<P>(out + i * P, low);
    store<P>(out + half + i * P, high);
  });
}

// The gradient turned back: of the norm's output, or of x where there is no norm.
template <int P>
struct TurnedBack {
  Pack<P> first, second;
};
template <int P, typename T>
GEMMA_SFT_ROW TurnedBack<P> turn_back(const HeadBackward<T>& given, int64_t row, int64_t i) {
  const int64_t half = given.half, token = row / given.heads;
  const T* gradient = given.gradient + row * 2 * half;
  const Pack<P> low = load<P>(gradient + i * P), high = load<P>(gradient + half + i * P);
  const Pack<P> cosine = load<P>(given.cos + token * half + i * P), sine = load<P>(given.sin + token * half + i * P);
  TurnedBack<P> result;
  for (int k = 0; k < P; ++k) {
    result.first.at[k] = rounded<T>(turned<T>(low.at[k], cosine.at[k], high.at[k], sine.at[k]));
    result.second.at[k] = rounded<T>(turned<T>(high.at[k], cosine.at[k], low.at[k], -sine.at[k]));
  }
  return result;
}

template <int P, typename T, typename Team>
GEMMA_SFT_ROW void head_backward_row(const Team& team, const HeadBackward<T>& given, int64_t row, float* sums) {
  const int64_t half = given.half, packs = half / P, place = row * 2 * half;
  T* out = given.x_gradient + place;
  if (given.weight.data == nullptr) {
    team.each(packs, [&](int64_t i) {
      const TurnedBack<P> back = turn_back<P>(given, row, i);
      store<P>(out + i * P, back.first);
      store<P>(out + half + i * P, back.second);
    });
    return;
  }
  const float inverse = given.inverse[row];
  const float along = team.sum(packs, [&](int64_t i) {
    const TurnedBack<P> back = turn_back<P>(given, row, i);
    const Pack<P> first = load<P>(given.x + place + i * P), second = load<P>(given.x + place + half + i * P);
    const Pack<P> a = load_values<P>(given.weight, i * P), b = load_values<P>(given.weight, half + i * P);
    float sum = 0;
    for (int k = 0; k < P; ++k) {
      const float low = back.first.at[k] * (first.at[k] * inverse), high = back.second.at[k] * (second.at[k] * inverse);
      if (sums != nullptr) {
        sums[k * packs + i] += low;
        sums[half + k * packs + i] += high;
      }
      sum += low * (1.0f + a.at[k]) + high * (1.0f + b.at[k]);
    }
    return sum;
  });
  const float mean = along / static_cast<float>(2 * half);
  team.each(packs, [&](int64_t i) {
    TurnedBack<P> back = turn_back<P>(given, row, i);
    const Pack<P> first = load<P>(given.x + place + i * P), second = load<P>(given.x + place + half + i * P);
    const Pack<P> a = load_values<P>(given.weight, i * P), b = load_values<P>(given.weight, half + i * P);
    for (int k = 0; k < P; ++k) {
      back.first.at[k] = (back.first.at[k] * (1.0f + a.at[k]) - first.at[k] * inverse * mean) * inverse;
      back.second.at[k] = (back.second.at[k] * (1.0f + b.at[k]) - second.at[k] * inverse * mean) * inverse;
    }
    store<P>(out + i * P, back.first);
    store<P>(out + half + i * P, back.second);
  });
}

// One place of the scratch summed over its rows, for the gradient of a norm's weight. Of each `span` columns the first
// values of all packs lie before the second ones, and so on: lanes side by side add to places side by side. With packs
// kept together, eight lanes would wait for the same bank of shared memory.
template <typename Team>
GEMMA_SFT_ROW void sum_column(const Team& team, const float* parts, int64_t rows, int64_t width, int64_t span,
                              int64_t pack, int64_t place, float* out) {
  const float sum = team.sum(rows, [&](int64_t i) { return parts[i * width + place]; });
  const int64_t packs = span / pack, in_span = place % span;
  team.each(1, [&](int64_t) { out[place - in_span + in_span % packs * pack + in_span / packs] = sum; });
}

// ---- the gate of the MLP --------------------------------------------------------------------------------------------
struct Gelu {
  float value, slope;
};

// 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) and its derivative.
GEMMA_SFT_ROW Gelu gelu(float x) {
  constexpr float kRoot = 0.79788456080286536f, kCubic = 0.044715f;
  const float square = x * x;
  const float t = tanhf(kRoot * (x + kCubic * x * square));
  const float half = 0.5f * (1.0f + t);
  return {x * half, half + 0.5f * x * (1.0f - t * t) * kRoot * (1.0f + 3.0f * kCubic * square)};
}

template <int P, typename T>
GEMMA_SFT_ROW void gate_pack(const T* gate, const T* up, int64_t i, T* out) {
  Pack<P> value = load<P>(gate + i * P);
  const Pack<P> factor = load<P>(up + i * P);
  for (int k = 0; k < P; ++k) value.at[k] = rounded<T>(gelu(value.at[k]).value) * factor.at[k];
  store<P>(out + i * P, value);
}

template <int P, typename T>
GEMMA_SFT_ROW void gate_backward_pack(const T* gradient, const T* gate, const T* up, int64_t i, T* gate_gradient,
                                      T* up_gradient) {
  const Pack<P> given = load<P>(gradient + i * P), value = load<P>(gate + i * P), factor = load<P>(up + i * P);
  Pack<P> to_gate, to_up;
  for (int k = 0; k < P; ++k) {
    const Gelu made = gelu(value.at[k]);
    to_up.at[k] = given.at[k] * rounded<T>(made.value);
    to_gate.at[k] = rounded<T>(given.at[k] * factor.at[k]) * made.slope;
  }
  store<P>(gate_gradient + i * P, to_gate);
  store<P>(up_gradient + i * P, to_up);
}

// ---- embedding ------------------------------------------------------------------------------------------------------
template <int P, typename T, typename Team>
GEMMA_SFT_ROW void embedding_row(const Team& team, const EmbeddingForward<T>& given, int64_t token) {
  const int64_t from = given.ids[token] * given.width;
  team.each(given.width / P, [&](int64_t i) {
    Pack<P> value = load_values<P>(given.weight, from + i * P);
    for (int k = 0; k < P; ++k) value.at[k] = rounded<T>(value.at[k]) * given.scale;
    store<P>(given.out + token * given.width + i * P, value);
  });
}

// `place` in sorted order. The first of equal ids sums all of them, in the order of the tokens.
template <int P, typename T, typename Team>
GEMMA_SFT_ROW void embedding_backward_row(const Team& team, const EmbeddingBackward<T>& given, int64_t place) {
  const int64_t id = given.sorted_ids[place];
  if (id == given.pad_id || (place > 0 && given.sorted_ids[place - 1] == id)) return;
  team.each(given.width / P, [&](int64_t i) {
    Pack<P> sum{};
    for (int64_t j = place; j < given.tokens && given.sorted_ids[j] == id; ++j) {
      const Pack<P> gradient = load<P>(given.gradient + given.order[j] * given.width + i * P);
      for (int k = 0; k < P; ++k) sum.at[k] += rounded<T>(gradient.at[k] * given.scale);
    }
    const Pack<P> before = load_values<P>({given.total.data, given.total.narrow}, id * given.width + i * P);
    for (int k = 0; k < P; ++k) sum.at[k] += before.at[k];
    if (given.total.narrow) {
      store<P>(static_cast<Bf16*>(given.total.data) + id * given.width + i * P, sum);
    } else {
      store<P>(static_cast<float*>(given.total.data) + id * given.width + i * P, sum);
    }
  });
}

// ---- softmax --------------------------------------------------------------------------------------------------------
// The largest value so far and the sum of exp(value - largest).
struct Exponentials {
  float largest, sum;
};
GEMMA_SFT_ROW Exponentials merged(Exponentials a, Exponentials b) {
  // A NaN is the largest, so that it reaches the result.
  const float largest = !(a.largest <= b.largest) ? a.largest : b.largest;
  const float low = -3.0e38f;  // both empty: no infinity minus infinity, but a NaN in b, which is not the largest
  if (largest < low) return {largest, a.sum + b.sum};
  return {largest, a.sum * expf(a.largest - largest) + b.sum * expf(b.largest - largest)};
}
constexpr float kNoValue = -3.4e38f;

struct Capped {
  float value, slope;
};
GEMMA_SFT_ROW Capped cap(float raw, float softcap) {
  if (softcap <= 0.0f) return {raw, 1.0f};
  const float t = tanhf(raw / softcap);
  return {softcap * t, 1.0f - t * t};
}

template <int P, typename T, typename Team>
GEMMA_SFT_ROW void cross_entropy_row(const Team& team, const CrossEntropyRows<T>& given, int64_t row) {
  T* logits = given.logits + row * given.vocabulary;
  const int64_t packs = given.vocabulary / P, target = given.targets[row];
  const float target_value = cap(load<1>(logits + target).at[0], given.softcap).value;
  const Exponentials all = team.join(
      packs, Exponentials{kNoValue, 0.0f},
      [&](int64_t i) {
        const Pack<P> value = load<P>(logits + i * P);
        Exponentials some{kNoValue, 0.0f};
        float capped[P];
        for (int k = 0; k < P; ++k) {
          capped[k] = cap(value.at[k], given.softcap).value;
          if (!(capped[k] <= some.largest)) some.largest = capped[k];
        }
        for (int k = 0; k < P; ++k) some.sum += expf(capped[k] - some.largest);
        return some;
      },
      [](Exponentials a, Exponentials b) { return merged(a, b); });
  team.each(1, [&](int64_t) {
    given.losses[row] = log(static_cast<double>(all.sum)) + (static_cast<double>(all.largest) - target_value);
  });
  if (!given.gradient_wanted) return;
  const float factor = 1.0f / all.sum;
  team.each(packs, [&](int64_t i) {
    Pack<P> value = load<P>(logits + i * P);
    for (int k = 0; k < P; ++k) {
      const Capped capped = cap(value.at[k], given.softcap);
      const float hit = i * P + k == target ? 1.0f : 0.0f;
      value.at[k] = (expf(capped.value - all.largest) * factor - hit) * capped.slope;
    }
    store<P>(logits + i * P, value);
  });
}

// ---- attention by blocks of queries ---------------------------------------------------------------------------------
struct VisibleKeys {
  int64_t first, last;
};
GEMMA_SFT_ROW VisibleKeys visible_keys(const ScoreBlock& block, int64_t row_in_stack) {
  const int64_t last = block.first_last + row_in_stack / block.group;
  const int64_t first = block.window > 0 && last > block.window ? last - block.window : 0;
  return {first, last};
}

template <typename T, typename Team>
GEMMA_SFT_ROW void attention_weights_row(const Team& team, const ScoreBlock& block, int64_t row, T* all_scores,
                                         float* log_sums) {
  const int64_t stack = row / block.rows, in_stack = row % block.rows;
  const VisibleKeys keys = visible_keys(block, in_stack);
  T* scores = all_scores + row * block.keys;
  const auto capped = [&](int64_t i) { return cap(load<1>(scores + i).at[0] * block.scale, block.softcap).value; };
  const int64_t count = keys.last - keys.first;
  const float largest = team.join(
      count, kNoValue, [&](int64_t i) { return capped(keys.first + i); },
      [](float a, float b) { return !(a <= b) ? a : b; });
  const float sum = team.sum(count, [&](int64_t i) { return expf(capped(keys.first + i) - largest); });
  const float factor = 1.0f / sum;
  team.each(block.keys, [&](int64_t i) {
    const bool visible = i >= keys.first && i < keys.last;
    store<1>(scores + i, Pack<1>{{visible ? expf(capped(i) - largest) * factor : 0.0f}});
  });
  team.each(1, [&](int64_t) { log_sums[stack * block.log_sum_stride + in_stack] = largest + logf(sum); });
}

template <typename T, typename Team>
GEMMA_SFT_ROW void attention_backward_row(const Team& team, const ScoreBlock& block, int64_t row, const float* log_sums,
                                          T* all_scores, T* all_gradients) {
  const int64_t stack = row / block.rows, in_stack = row % block.rows;
  const VisibleKeys keys = visible_keys(block, in_stack);
  T* scores = all_scores + row * block.keys;
  T* gradient = all_gradients + row * block.keys;
  const float log_sum = log_sums[stack * block.log_sum_stride + in_stack];
  const auto capped = [&](int64_t i) { return cap(load<1>(scores + i).at[0] * block.scale, block.softcap); };
  const float along = team.sum(keys.last - keys.first, [&](int64_t i) {
    return expf(capped(keys.first + i).value - log_sum) * load<1>(gradient + keys.first + i).at[0];
  });
  team.each(block.keys, [&](int64_t i) {
    float weight = 0.0f, made = 0.0f;
    if (i >= keys.first && i < keys.last) {
      const Capped score = capped(i);
      weight = expf(score.value - log_sum);
      made = (load<1>(gradient + i).at[0] - along) * weight * score.slope * block.scale;
    }
    store<1>(scores + i, Pack<1>{{weight}});
    store<1>(gradient + i, Pack<1>{{made}});
  });
}

// ---- AdamW ----------------------------------------------------------------------------------------------------------
// 64 well-mixed bits of a key and a counter (the finaliser of splitmix64).
GEMMA_SFT_ROW uint64_t random_bits(uint64_t key, uint64_t counter) {
  uint64_t bits = key + counter * 0x9e3779b97f4a7c15ull;
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9ull;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebull;
  return bits ^ (bits >> 31);
}

// Up or down to bf16 with a chance that makes it right on average; `random` is one of 65,536 equally likely numbers.
GEMMA_SFT_ROW Bf16 rounded_at_random(float value, uint32_t random) {
  const uint32_t bits = bits_of(value);
  // Infinity and NaN stay what they are; the largest finite numbers may become infinity, as with any rounding.
  if ((bits & 0x7f800000u) == 0x7f800000u) return narrowed(value);
  return Bf16{static_cast<uint16_t>((bits + (random & 0xffffu)) >> 16)};
}

// A weight as it goes into the pack that is stored: rounded at random it is a bf16 number, which storing keeps; else
// storing rounds it.
template <typename T>
GEMMA_SFT_ROW float weight_to_store(float value, bool stochastic, uint64_t key, int64_t i);
template <>
GEMMA_SFT_ROW float weight_to_store<float>(float value, bool, uint64_t, int64_t) {
  return value;
}
template <>
GEMMA_SFT_ROW float weight_to_store<Bf16>(float value, bool stochastic, uint64_t key, int64_t i) {
  if (!stochastic) return value;
  // Four elements share 64 bits.
  const auto place = static_cast<uint64_t>(i);
  return widened(rounded_at_random(value, static_cast<uint32_t>(random_bits(key, place / 4) >> (place % 4 * 16))));
}

// What all elements of a tensor share.
struct AdamWFactors {
  float divisor, step_size, root_correction, decay, mean_part, square_kept, square_part, epsilon;
};
GEMMA_SFT_ROW AdamWFactors adamw_factors(const AdamWUpdate& update, const AdamWTensor& tensor) {
  const double step = static_cast<double>(*tensor.step);
  return {*update.divisor,
          static_cast<float>(update.rate / (1.0 - pow(update.beta1, step))),
          static_cast<float>(sqrt(1.0 - pow(update.beta2, step))),
          static_cast<float>(update.rate * tensor.weight_decay),
          static_cast<float>(1.0 - update.beta1),
          static_cast<float>(update.beta2),
          static_cast<float>(1.0 - update.beta2),
          static_cast<float>(update.epsilon)};
}

template <int P, typename T>
GEMMA_SFT_ROW void adamw_pack(const AdamWUpdate& update, const AdamWTensor& tensor, const AdamWFactors& factors,
                              int64_t i) {
  T* weights = static_cast<T*>(tensor.weight) + i;
  T* means = static_cast<T*>(tensor.mean) + i;
  T* squares = static_cast<T*>(tensor.square) + i;
  const Pack<P> gradients = load<P>(static_cast<const T*>(tensor.gradient) + i);
  Pack<P> weight = load<P>(weights), mean = load<P>(means), square = load<P>(squares);
  for (int k = 0; k < P; ++k) {
    const float gradient = gradients.at[k] / factors.divisor;
    weight.at[k] -= factors.decay * weight.at[k];
    mean.at[k] += factors.mean_part * (gradient - mean.at[k]);
    square.at[k] = factors.square_kept * square.at[k] + factors.square_part * gradient * gradient;
    const float root = sqrtf(square.at[k]) / factors.root_correction + factors.epsilon;
    weight.at[k] -= factors.step_size * mean.at[k] / root;
    weight.at[k] = weight_to_store<T>(weight.at[k], update.stochastic, tensor.random_key, i + k);
  }
  store<P>(weights, weight);
  store<P>(means, mean);
  store<P>(squares, square);
}

}  // namespace
}  // namespace gemma_sft
