// Each kernel of model/gpu/gpu_kernels.h against its formula in fp64: the host's table everywhere, CUDA's where a GPU
// is. Rows that 16-byte packs fill and rows that they do not, aligned and not; arrays have guards around them.
#include "model/gpu/gpu_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "model/float_bits.h"
#include "tests/model/gpu/gpu_memory.h"

namespace gemma_sft {
namespace {

float to_float(float value) { return value; }
float to_float(Bf16 value) { return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16); }

template <typename T>
T narrowed(double value) {
  if constexpr (std::is_same_v<T, float>) {
    return static_cast<float>(value);
  } else {
    return Bf16{to_bf16_bits(static_cast<float>(value))};
  }
}

template <typename T>
constexpr double kTolerance = std::is_same_v<T, float> ? 3e-6 : 1.0 / 128;

struct Device {
  const GpuKernels* kernels;
  const GpuMemory* memory;
};

template <typename T>
const GpuRowKernels<T>& rows_of(const Device& device) {
  if constexpr (std::is_same_v<T, float>) {
    return device.kernels->wide;
  } else {
    return device.kernels->narrow;
  }
}

// Random arrays in the device's memory, whose guards are checked at the end.
class Arrays {
 public:
  Arrays(const Device& device, uint64_t seed, size_t offset) : device_(device), random_(seed), offset_(offset) {}

  template <typename T>
  std::vector<T> numbers(int64_t count, double deviation) {
    std::normal_distribution<double> normal(0, deviation);
    std::vector<T> values;
    for (int64_t i = 0; i < count; ++i) values.push_back(narrowed<T>(normal(random_)));
    return values;
  }
  template <typename T>
  T* place(const std::vector<T>& values) {
    return keep(std::make_shared<TestArray<T>>(*device_.memory, values, offset_));
  }
  template <typename T>
  T* space(int64_t count) {
    return place(std::vector<T>(static_cast<size_t>(count)));
  }
  template <typename T>
  std::vector<T> read(const T* pointer) const {
    return static_cast<const TestArray<T>*>(arrays_.at(pointer).get())->read();
  }
  void check_guards() const {
    for (const auto& check : checks_) EXPECT_TRUE(check()) << "a kernel wrote past an array";
  }

 private:
  template <typename T>
  T* keep(const std::shared_ptr<TestArray<T>>& array) {
    arrays_[array->get()] = array;
    checks_.push_back([array] { return array->guards_are_whole(); });
    return array->get();
  }
  Device device_;
  std::mt19937_64 random_;
  size_t offset_;
  std::map<const void*, std::shared_ptr<void>> arrays_;
  std::vector<std::function<bool()>> checks_;
};

template <typename Found>
void expect_near(Found found, double expected, double tolerance, const char* what) {
  EXPECT_NEAR(to_float(found), expected, tolerance) << what;
}

template <typename T>
void check_norm(const Device& device, int64_t rows, int64_t width, size_t offset) {
  Arrays arrays(device, static_cast<uint64_t>(width), offset);
  const auto x = arrays.numbers<T>(rows * width, 2), residual = arrays.numbers<T>(rows * width, 1);
  const auto gradient = arrays.numbers<T>(rows * width, 1), sum_gradient = arrays.numbers<T>(rows * width, 1);
  const auto weight = arrays.numbers<Bf16>(width, 0.5);
  const Values scale = {arrays.place(weight), true};
  T *sum = arrays.space<T>(rows * width), *out = arrays.space<T>(rows * width), *made = arrays.space<T>(rows * width);
  T* frozen = arrays.space<T>(rows * width);
  float* inverse = arrays.space<float>(rows);
  const int64_t parts = device.kernels->parts(rows, width);
  float *weight_parts = arrays.space<float>(parts * width), *weight_gradient = arrays.space<float>(width);
  rows_of<T>(device).norm({arrays.place(x), arrays.place(residual), scale, 1e-6f, rows, width, sum, out, inverse},
                          nullptr);
  rows_of<T>(device).norm_backward({arrays.place(gradient), arrays.place(sum_gradient), sum, inverse, scale, rows,
                                    width, made, weight_parts, weight_gradient},
                                   nullptr);
  rows_of<T>(device).norm_backward(
      {arrays.place(gradient), arrays.place(sum_gradient), sum, inverse, scale, rows, width, frozen, nullptr, nullptr},
      nullptr);
  const auto sums = arrays.read(sum), outs = arrays.read(out), mades = arrays.read(made), alone = arrays.read(frozen);
  const auto weight_gradients = arrays.read(weight_gradient);
  std::vector<double> expected_weight(static_cast<size_t>(width));
  for (int64_t r = 0; r < rows; ++r) {
    double squares = 0, along = 0;
    for (int64_t i = 0; i < width; ++i) {
      const auto k = static_cast<size_t>(r * width + i);
      EXPECT_EQ(to_float(sums[k]), to_float(narrowed<T>(to_float(x[k]) + to_float(residual[k]))));
      squares += std::pow(to_float(sums[k]), 2);
    }
    const double factor = 1 / std::sqrt(squares / static_cast<double>(width) + 1e-6);
    const auto at = [&](int64_t i) { return static_cast<size_t>(r * width + i); };
    const auto w = [&](int64_t i) { return 1.0 + to_float(weight[static_cast<size_t>(i)]); };
    for (int64_t i = 0; i < width; ++i) {
      const double unit = to_float(sums[at(i)]) * factor;
      along += to_float(gradient[at(i)]) * w(i) * unit / static_cast<double>(width);
      expected_weight[static_cast<size_t>(i)] += to_float(gradient[at(i)]) * unit;
    }
    for (int64_t i = 0; i < width; ++i) {
      const double unit = to_float(sums[at(i)]) * factor;
      expect_near(outs[at(i)], unit * w(i), kTolerance<T> * 8, "norm");
      const double x_gradient =
          (to_float(gradient[at(i)]) * w(i) - unit * along) * factor + to_float(sum_gradient[at(i)]);
      const double bar = kTolerance<T> * 8 * std::max(1.0, factor);
      expect_near(mades[at(i)], x_gradient, bar, "norm's gradient");
      expect_near(alone[at(i)], x_gradient, bar, "norm's gradient, its weight frozen");
    }
  }
  for (size_t i = 0; i < expected_weight.size(); ++i) {
    EXPECT_NEAR(weight_gradients[i], expected_weight[i], 2e-6 * std::sqrt(static_cast<double>(rows)) * 10);
  }
  arrays.check_guards();
}

template <typename T>
void check_head(const Device& device, int64_t tokens, int64_t heads, int64_t half, bool norms, size_t offset) {
  Arrays arrays(device, static_cast<uint64_t>(half), offset);
  const int64_t rows = tokens * heads, dim = 2 * half;
  const auto x = arrays.numbers<T>(rows * dim, 1), gradient = arrays.numbers<T>(rows * dim, 1);
  std::vector<T> cos, sin;
  for (int64_t i = 0; i < tokens * half; ++i) {
    cos.push_back(narrowed<T>(std::cos(0.37 * static_cast<double>(i))));
    sin.push_back(narrowed<T>(std::sin(0.37 * static_cast<double>(i))));
  }
  const auto weight = arrays.numbers<float>(dim, 0.5);
  const Values scale = {norms ? arrays.place(weight) : nullptr, false};
  float* inverse = norms ? arrays.space<float>(rows) : nullptr;
  const int64_t parts = device.kernels->parts(rows, dim);
  float* weight_parts = norms ? arrays.space<float>(parts * dim) : nullptr;
  float* weight_gradient = norms ? arrays.space<float>(dim) : nullptr;
  T *out = arrays.space<T>(rows * dim), *made = arrays.space<T>(rows * dim), *frozen = arrays.space<T>(rows * dim);
  const T *at_x = arrays.place(x), *at_cos = arrays.place(cos), *at_sin = arrays.place(sin);
  rows_of<T>(device).head({at_x, scale, 1e-6f, at_cos, at_sin, tokens, heads, half, out, inverse}, nullptr);
  rows_of<T>(device).head_backward({arrays.place(gradient), norms ? at_x : nullptr, inverse, scale, at_cos, at_sin,
                                    tokens, heads, half, made, weight_parts, weight_gradient},
                                   nullptr);
  rows_of<T>(device).head_backward({arrays.place(gradient), norms ? at_x : nullptr, inverse, scale, at_cos, at_sin,
                                    tokens, heads, half, frozen, nullptr, nullptr},
                                   nullptr);
  const auto outs = arrays.read(out), mades = arrays.read(made), alone = arrays.read(frozen);
  std::vector<double> expected_weight(static_cast<size_t>(dim));
  for (int64_t r = 0; r < rows; ++r) {
    double squares = 0, along = 0;
    const auto value = [&](const std::vector<T>& values, int64_t i) {
      return static_cast<double>(to_float(values[static_cast<size_t>(r * dim + i)]));
    };
    for (int64_t i = 0; i < dim; ++i) squares += std::pow(value(x, i), 2);
    const double factor = norms ? 1 / std::sqrt(squares / static_cast<double>(dim) + 1e-6) : 1.0;
    const auto w = [&](int64_t i) { return norms ? 1.0 + weight[static_cast<size_t>(i)] : 1.0; };
    const auto angle = [&](const std::vector<T>& values, int64_t i) {
      return static_cast<double>(to_float(values[static_cast<size_t>(r / heads * half + i % half)]));
    };
    std::vector<double> back(static_cast<size_t>(dim));
    for (int64_t i = 0; i < dim; ++i) {
      const int64_t other = (i + half) % dim;
      const double direction = i < half ? -1 : 1;
      const double turned =
          value(x, i) * factor * w(i) * angle(cos, i) + direction * value(x, other) * factor * w(other) * angle(sin, i);
      expect_near(outs[static_cast<size_t>(r * dim + i)], turned, kTolerance<T> * 10, "head");
      back[static_cast<size_t>(i)] =
          value(gradient, i) * angle(cos, i) - direction * value(gradient, other) * angle(sin, i);
    }
    for (int64_t i = 0; i < dim; ++i) {
      const double unit = value(x, i) * factor, given = back[static_cast<size_t>(i)];
      along += given * w(i) * unit / static_cast<double>(dim);
      expected_weight[static_cast<size_t>(i)] += given * unit;
    }
    for (int64_t i = 0; i < dim; ++i) {
      const double given = back[static_cast<size_t>(i)];
      const double expected = norms ? (given * w(i) - value(x, i) * factor * along) * factor : given;
      const double bar = kTolerance<T> * 12 * std::max(1.0, factor);
      expect_near(mades[static_cast<size_t>(r * dim + i)], expected, bar, "head's gradient");
      expect_near(alone[static_cast<size_t>(r * dim + i)], expected, bar, "head's gradient, its weight frozen");
    }
  }
  if (norms) {
    const auto found = arrays.read(weight_gradient);
    const double bar = kTolerance<T> * 2 * std::sqrt(static_cast<double>(rows));
    for (size_t i = 0; i < expected_weight.size(); ++i) EXPECT_NEAR(found[i], expected_weight[i], bar);
  }
  arrays.check_guards();
}

double gelu(double x) { return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))); }

template <typename T>
void check_gate(const Device& device, int64_t count, size_t offset) {
  Arrays arrays(device, static_cast<uint64_t>(count), offset);
  const auto gate = arrays.numbers<T>(count, 3), up = arrays.numbers<T>(count, 1), given = arrays.numbers<T>(count, 1);
  T *out = arrays.space<T>(count), *gate_gradient = arrays.space<T>(count), *up_gradient = arrays.space<T>(count);
  const T *at_gate = arrays.place(gate), *at_up = arrays.place(up);
  rows_of<T>(device).gate(at_gate, at_up, count, out, nullptr);
  rows_of<T>(device).gate_backward(arrays.place(given), at_gate, at_up, count, gate_gradient, up_gradient, nullptr);
  const auto outs = arrays.read(out), to_gate = arrays.read(gate_gradient), to_up = arrays.read(up_gradient);
  for (size_t i = 0; i < gate.size(); ++i) {
    const double g = to_float(gate[i]), u = to_float(up[i]), d = to_float(given[i]);
    const double slope = (gelu(g + 1e-5) - gelu(g - 1e-5)) / 2e-5;
    expect_near(outs[i], gelu(g) * u, kTolerance<T> * std::max(1.0, std::abs(gelu(g) * u)), "gate");
    expect_near(to_gate[i], d * u * slope, kTolerance<T> * std::max(4.0, std::abs(d * u * slope)), "gate's gradient");
    expect_near(to_up[i], d * gelu(g), kTolerance<T> * std::max(2.0, std::abs(d * gelu(g))), "up's gradient");
  }
  arrays.check_guards();
}

template <typename T>
void check_embedding(const Device& device, int64_t width, size_t offset) {
  Arrays arrays(device, static_cast<uint64_t>(width), offset);
  const std::vector<int64_t> ids = {3, 0, 3, 10, 1, 3, 0}, order = {1, 6, 4, 0, 2, 5, 3},
                             sorted = {0, 0, 1, 3, 3, 3, 10};
  const auto tokens = static_cast<int64_t>(ids.size());
  const auto weight = arrays.numbers<float>(11 * width, 1), before = arrays.numbers<float>(11 * width, 1);
  const auto gradient = arrays.numbers<T>(tokens * width, 1);
  T* out = arrays.space<T>(tokens * width);
  float* total = arrays.place(before);
  rows_of<T>(device).embedding({arrays.place(ids), {arrays.place(weight), false}, 1.5f, tokens, width, out}, nullptr);
  rows_of<T>(device).embedding_backward(
      {arrays.place(gradient), arrays.place(sorted), arrays.place(order), 1.5f, tokens, width, 0, {total, false}},
      nullptr);
  const auto outs = arrays.read(out);
  const auto totals = arrays.read(total);
  std::vector<double> expected(before.begin(), before.end());
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < width; ++i) {
      const auto place = static_cast<size_t>(t * width + i);
      const auto row = static_cast<size_t>(ids[static_cast<size_t>(t)] * width + i);
      EXPECT_EQ(to_float(outs[place]), to_float(narrowed<T>(to_float(narrowed<T>(weight[row])) * 1.5)));
      if (ids[static_cast<size_t>(t)] != 0) expected[row] += to_float(narrowed<T>(to_float(gradient[place]) * 1.5));
    }
  }
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(totals[i], expected[i], 2e-6);
  arrays.check_guards();
}

template <typename T>
void check_cross_entropy(const Device& device, int64_t vocabulary, float softcap, size_t offset) {
  Arrays arrays(device, static_cast<uint64_t>(vocabulary), offset);
  const int64_t rows = 3;
  const auto logits = arrays.numbers<T>(rows * vocabulary, 4);
  const std::vector<int64_t> targets = {0, vocabulary - 1, vocabulary / 2};
  for (const bool gradient_wanted : {false, true}) {
    T* in_place = arrays.place(logits);
    double* losses = arrays.space<double>(rows);
    rows_of<T>(device).cross_entropy(
        {in_place, arrays.place(targets), rows, vocabulary, softcap, gradient_wanted, losses}, nullptr);
    const auto found = arrays.read(losses);
    const auto made = arrays.read(in_place);
    for (int64_t r = 0; r < rows; ++r) {
      const auto at = [&](int64_t i) { return static_cast<size_t>(r * vocabulary + i); };
      const auto capped = [&](int64_t i) {
        const double raw = to_float(logits[at(i)]);
        return softcap > 0 ? softcap * std::tanh(raw / softcap) : raw;
      };
      double sum = 0;
      for (int64_t i = 0; i < vocabulary; ++i) sum += std::exp(capped(i));
      const int64_t target = targets[static_cast<size_t>(r)];
      EXPECT_NEAR(found[static_cast<size_t>(r)], std::log(sum) - capped(target), 3e-6);
      for (int64_t i = 0; i < vocabulary; ++i) {
        if (!gradient_wanted) {
          EXPECT_EQ(to_float(made[at(i)]), to_float(logits[at(i)]));
          continue;
        }
        const double slope = softcap > 0 ? 1 - std::pow(std::tanh(to_float(logits[at(i)]) / softcap), 2) : 1.0;
        expect_near(made[at(i)], (std::exp(capped(i)) / sum - (i == target ? 1 : 0)) * slope, kTolerance<T>, "logit");
      }
    }
  }
  arrays.check_guards();
}

template <typename T>
void check_attention(const Device& device, int64_t keys, int64_t window, float softcap, size_t offset) {
  Arrays arrays(device, static_cast<uint64_t>(keys), offset);
  // Two stacks of three queries by two heads; the last query sees the last key.
  const ScoreBlock block = {.stacks = 2,
                            .rows = 6,
                            .keys = keys,
                            .group = 2,
                            .first_last = keys - 2,
                            .window = window,
                            .scale = 0.4f,
                            .softcap = softcap,
                            .log_sum_stride = 9};
  const auto given = arrays.numbers<T>(12 * keys, 4), gradient = arrays.numbers<T>(12 * keys, 1);
  T *weights = arrays.place(given), *scores = arrays.place(given), *made = arrays.place(gradient);
  float* log_sums = arrays.space<float>(18);
  rows_of<T>(device).attention_weights(block, weights, log_sums, nullptr);
  rows_of<T>(device).attention_backward(block, log_sums, scores, made, nullptr);
  const auto found = arrays.read(weights), again = arrays.read(scores), to_scores = arrays.read(made);
  const auto sums = arrays.read(log_sums);
  for (int64_t row = 0; row < 12; ++row) {
    const int64_t last = keys - 2 + row % 6 / 2, first = window > 0 ? std::max<int64_t>(0, last - window) : 0;
    const auto at = [&](int64_t i) { return static_cast<size_t>(row * keys + i); };
    const auto capped = [&](int64_t i) {
      const double raw = to_float(given[at(i)]) * 0.4f;
      return softcap > 0 ? softcap * std::tanh(raw / softcap) : raw;
    };
    double sum = 0, along = 0;
    for (int64_t i = first; i < last; ++i) sum += std::exp(capped(i));
    for (int64_t i = first; i < last; ++i) along += std::exp(capped(i)) / sum * to_float(gradient[at(i)]);
    EXPECT_NEAR(sums[static_cast<size_t>(row / 6 * 9 + row % 6)], std::log(sum), 3e-6);
    for (int64_t i = 0; i < keys; ++i) {
      const bool visible = i >= first && i < last;
      const double weight = visible ? std::exp(capped(i)) / sum : 0;
      const double slope = softcap > 0 ? 1 - std::pow(std::tanh(to_float(given[at(i)]) * 0.4f / softcap), 2) : 1.0;
      expect_near(found[at(i)], weight, kTolerance<T>, "weight");
      expect_near(again[at(i)], weight, kTolerance<T>, "weight made again");
      expect_near(to_scores[at(i)], visible ? (to_float(gradient[at(i)]) - along) * weight * slope * 0.4f : 0.0,
                  kTolerance<T> * 2, "gradient of a score");
    }
  }
  arrays.check_guards();
}

AdamWUpdate make_update(int count, double rate, double beta2) {
  AdamWUpdate update;
  update.count = count;
  update.rate = rate;
  update.beta1 = 0.9;
  update.beta2 = beta2;
  update.epsilon = 1e-8;
  return update;
}

template <typename T>
void check_adamw(const Device& device, size_t offset) {
  Arrays arrays(device, 5, offset);
  const std::vector<int64_t> counts = {1, 70, 20000, 8};  // the third takes more than one team
  AdamWUpdate update = make_update(4, 0.01, 0.99);
  std::vector<std::vector<T>> weights, gradients, means, squares;
  for (int i = 0; i < 4; ++i) {
    const int64_t count = counts[static_cast<size_t>(i)];
    weights.push_back(arrays.numbers<T>(count, 1));
    gradients.push_back(arrays.numbers<T>(count, 3));
    means.push_back(arrays.numbers<T>(count, 0.1));
    squares.push_back(arrays.numbers<T>(count, 0.1));
    for (T& square : squares.back()) square = narrowed<T>(std::abs(to_float(square)));
    const double decay = i % 2 == 0 ? 0.1 : 0.0;
    update.tensors[i] = {arrays.place(weights.back()),
                         arrays.place(gradients.back()),
                         arrays.place(means.back()),
                         arrays.place(squares.back()),
                         arrays.place(std::vector<float>{3.0f + static_cast<float>(i)}),
                         count,
                         decay,
                         0};
  }
  update.divisor = arrays.place(std::vector<float>{2.5f});
  update.skip = arrays.place(std::vector<float>{1.0f});
  rows_of<T>(device).adamw(update, nullptr);
  for (int i = 0; i < 4; ++i) {
    const auto found = arrays.read(static_cast<T*>(update.tensors[i].weight));
    EXPECT_EQ(0, std::memcmp(found.data(), weights[static_cast<size_t>(i)].data(), found.size() * sizeof(T)))
        << "a skipped step changed a weight";
  }
  update.skip = arrays.place(std::vector<float>{0.0f});
  rows_of<T>(device).adamw(update, nullptr);
  for (int i = 0; i < 4; ++i) {
    const auto k = static_cast<size_t>(i);
    const auto found = arrays.read(static_cast<T*>(update.tensors[i].weight));
    const auto mean = arrays.read(static_cast<T*>(update.tensors[i].mean));
    const auto square = arrays.read(static_cast<T*>(update.tensors[i].square));
    for (size_t j = 0; j < found.size(); ++j) {
      const double g = to_float(gradients[k][j]) / 2.5, step = 3.0 + i;
      const double m = 0.9 * to_float(means[k][j]) + 0.1 * g, v = 0.99 * to_float(squares[k][j]) + 0.01 * g * g;
      double w = to_float(weights[k][j]) * (1 - 0.01 * (i % 2 == 0 ? 0.1 : 0.0));
      w -= 0.01 * (m / (1 - std::pow(0.9, step))) / (std::sqrt(v / (1 - std::pow(0.99, step))) + 1e-8);
      expect_near(found[j], w, kTolerance<T> * 4, "weight");
      expect_near(mean[j], m, kTolerance<T>, "mean");
      expect_near(square[j], v, kTolerance<T>, "square");
    }
  }
  arrays.check_guards();
}

// A step far below half a unit of the last place of bf16: rounding to nearest loses it every time, rounding at random
// keeps it on average.
void check_stochastic_rounding(const Device& device) {
  constexpr int64_t kCount = 40000;
  const std::vector<Bf16> ones(kCount, narrowed<Bf16>(1.0)), zeros(kCount, narrowed<Bf16>(0.0));
  const auto updated = [&](bool stochastic, uint64_t key, size_t offset = 0) {
    Arrays arrays(device, 1, offset);
    const float* first_step = arrays.place(std::vector<float>{1.0f});
    AdamWUpdate update = make_update(1, 1e-4, 0.999);
    // Gradient 1 from zero moments: the step is the rate.
    update.tensors[0] = {
        arrays.place(ones), arrays.place(ones), arrays.place(zeros), arrays.place(zeros), first_step, kCount, 0.0, key};
    update.divisor = arrays.place(std::vector<float>{1.0f});
    update.stochastic = stochastic;
    device.kernels->narrow.adamw(update, nullptr);
    return arrays.read(static_cast<Bf16*>(update.tensors[0].weight));
  };
  const auto mean_of = [](const std::vector<Bf16>& values) {
    double sum = 0;
    for (const Bf16 value : values) sum += to_float(value);
    return sum / static_cast<double>(values.size());
  };
  EXPECT_EQ(mean_of(updated(false, 7)), 1.0);
  const auto rounded = updated(true, 7);
  // The unit below 1 is 2^-8: each value is 1 or 1 - 2^-8, the latter with a chance of 0.0256; five deviations.
  EXPECT_NEAR(mean_of(rounded), 1.0 - 1e-4, 5 * 0.158 / 256 / 200);
  for (const Bf16 value : rounded) EXPECT_TRUE(to_float(value) == 1.0f || to_float(value) == 1.0f - 1.0f / 256);
  const auto same = [](const auto& a, const auto& b) {
    return std::equal(a.begin(), a.end(), b.begin(), [](Bf16 x, Bf16 y) { return x.bits == y.bits; });
  };
  EXPECT_TRUE(same(rounded, updated(true, 7)));
  EXPECT_TRUE(same(rounded, updated(true, 7, 1))) << "one value at a time is rounded like eight at once";
  EXPECT_FALSE(same(rounded, updated(true, 8)));
}

template <typename T>
void check_not_a_number(const Device& device, int64_t vocabulary, size_t at) {
  SCOPED_TRACE(std::to_string(at) + " of " + std::to_string(vocabulary));
  Arrays arrays(device, 1, 0);
  auto logits = arrays.numbers<T>(vocabulary, 1);
  logits[at] = narrowed<T>(std::numeric_limits<double>::quiet_NaN());
  T* in_place = arrays.place(logits);
  double* loss = arrays.space<double>(1);
  rows_of<T>(device).cross_entropy({in_place, arrays.place(std::vector<int64_t>{3}), 1, vocabulary, 0, true, loss},
                                   nullptr);
  EXPECT_TRUE(std::isnan(arrays.read(loss)[0]));
  EXPECT_TRUE(std::isnan(to_float(arrays.read(in_place)[0])));
  T* scores = arrays.place(logits);
  float* log_sum = arrays.space<float>(1);
  rows_of<T>(device).attention_weights({1, 1, vocabulary, 1, vocabulary, 0, 1.0f, 0.0f, 1}, scores, log_sum, nullptr);
  EXPECT_TRUE(std::isnan(arrays.read(log_sum)[0]));
  EXPECT_TRUE(std::isnan(to_float(arrays.read(scores)[0])));
}

template <typename T>
void check_all(const Device& device) {
  for (const size_t offset : {size_t{0}, size_t{1}}) {
    for (const int64_t width : {1, 7, 64, 1152, 2304, 9000})
      check_norm<T>(device, width < 100 ? 600 : 3, width, offset);
    for (const int64_t half : {3, 32, 128}) {
      for (const bool norms : {true, false}) check_head<T>(device, 7, 3, half, norms, offset);
    }
    check_head<T>(device, 300, 2, 32, true, offset);
    for (const int64_t count : {1, 7, 64, 1000}) check_gate<T>(device, count, offset);
    for (const int64_t width : {3, 64, 2048}) check_embedding<T>(device, width, offset);
    for (const int64_t vocabulary : {5, 97, 4096, 5000}) {
      for (const float softcap : {0.0f, 3.0f}) check_cross_entropy<T>(device, vocabulary, softcap, offset);
    }
    for (const int64_t keys : {3, 17, 300, 3000}) {
      for (const int64_t window : {0, 5}) {
        for (const float softcap : {0.0f, 1.5f}) check_attention<T>(device, keys, window, softcap, offset);
      }
    }
    check_adamw<T>(device, offset);
  }
  check_norm<T>(device, 520, 2304, 0);  // parts of the weight's gradient that have several rows
  // In the middle of a pack, and where it is the first or the last value that a lane sees.
  for (const size_t at : {0, 21, 23, 39}) {
    for (const int64_t vocabulary : {40, 41}) check_not_a_number<T>(device, vocabulary, at);
  }
}

class GpuKernelsOn : public ::testing::TestWithParam<std::string> {
 protected:
  Device device() const {
    return GetParam() == "host" ? Device{&host_gpu_kernels(), &host_memory()}
                                : Device{find_cuda_kernels(), find_gpu_memory()};
  }
};

TEST_P(GpuKernelsOn, EqualTheFormulasInFp64WithFp32) {
  check_all<float>(device());
  check_head<float>(device(), 1370, 3, 128, true, 0);  // as above, of a head's norm
}
TEST_P(GpuKernelsOn, EqualTheFormulasInFp64WithBf16) { check_all<Bf16>(device()); }
TEST_P(GpuKernelsOn, RoundAtRandomWithoutBias) { check_stochastic_rounding(device()); }
// Else a head's norm would leave most of a large chip idle.
TEST_P(GpuKernelsOn, SplitNarrowRowsIntoMoreParts) {
  const auto parts = device().kernels->parts;
  EXPECT_EQ(parts(65536, 256), 4096);
  EXPECT_EQ(parts(300, 256), 300);
  EXPECT_EQ(parts(8192, 2048), 512);
  EXPECT_EQ(parts(8192, 9216), 512);
}

std::vector<std::string> tables() {
  std::vector<std::string> names = {"host"};
  if (find_cuda_kernels() != nullptr) names.push_back("cuda");
  return names;
}
INSTANTIATE_TEST_SUITE_P(Tables, GpuKernelsOn, ::testing::ValuesIn(tables()),
                         [](const auto& given) { return given.param; });

}  // namespace
}  // namespace gemma_sft
