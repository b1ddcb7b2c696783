#include "model/cpu_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace gemma_sft {
namespace {

// Lengths around the width of a register of every instruction set.
const std::vector<int64_t> kLengths = {1, 3, 4, 5, 8, 15, 16, 17, 31, 33, 64, 100};

float to_float(float value) { return value; }
float to_float(Bf16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

// To the nearest bf16, ties to even, through fp64.
template <typename T>
T from_double(double value);
template <>
float from_double<float>(double value) {
  return static_cast<float>(value);
}
template <>
Bf16 from_double<Bf16>(double value) {
  const float single = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &single, sizeof(bits));
  const uint32_t below = bits & 0xffff0000u;
  float low, high;
  const uint32_t above = below + 0x10000u;
  std::memcpy(&low, &below, sizeof(low));
  std::memcpy(&high, &above, sizeof(high));
  const double to_low = std::abs(single - low), to_high = std::abs(high - single);
  const bool up = to_high < to_low || (to_high == to_low && (above & 0x10000u) == 0);
  return Bf16{static_cast<uint16_t>((up ? above : below) >> 16)};
}

template <typename T>
constexpr double kTolerance = std::is_same_v<T, float> ? 2e-6 : 1.0 / 128;

double gelu(double x) { return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))); }
double gelu_slope(double x) {
  const double step = 1e-5;
  return (gelu(x + step) - gelu(x - step)) / (2 * step);
}

template <typename T>
class Rows {
 public:
  explicit Rows(uint64_t seed) : random_(seed) {}
  std::vector<T> make(int64_t count, double deviation) {
    std::normal_distribution<double> normal(0, deviation);
    std::vector<T> values;
    for (int64_t i = 0; i < count; ++i) values.push_back(from_double<T>(normal(random_)));
    return values;
  }

 private:
  std::mt19937_64 random_;
};

template <typename T>
void expect_near(T found, double expected, double scale, const char* what) {
  EXPECT_NEAR(to_float(found), expected, kTolerance<T> * scale) << what;
}

template <typename T>
void check_norm(const RowKernels<T>& kernels) {
  for (const int64_t width : kLengths) {
    Rows<T> rows(width);
    Rows<float> floats(width + 1);
    const int64_t count = 3;
    const auto x = rows.make(count * width, 2), gradient = rows.make(count * width, 1);
    const auto scale = floats.make(width, 1);
    std::vector<T> out(x.size()), x_gradient(x.size());
    std::vector<float> inverse(count), scale_gradient(static_cast<size_t>(width), 1.0f);
    kernels.rms_norm(x.data(), scale.data(), 1e-6f, count, width, out.data(), inverse.data());
    kernels.rms_norm_backward(gradient.data(), x.data(), inverse.data(), scale.data(), count, width, x_gradient.data(),
                              scale_gradient.data());
    std::vector<double> expected_scale_gradient(static_cast<size_t>(width), 1.0);
    for (int64_t r = 0; r < count; ++r) {
      double squares = 0, along = 0;
      for (int64_t i = 0; i < width; ++i) squares += std::pow(to_float(x[r * width + i]), 2);
      const double factor = 1 / std::sqrt(squares / static_cast<double>(width) + 1e-6);
      for (int64_t i = 0; i < width; ++i) {
        const double unit = to_float(x[r * width + i]) * factor;
        along += to_float(gradient[r * width + i]) * scale[i] * unit / static_cast<double>(width);
        expected_scale_gradient[i] += to_float(gradient[r * width + i]) * unit;
      }
      for (int64_t i = 0; i < width; ++i) {
        const double unit = to_float(x[r * width + i]) * factor;
        expect_near(out[r * width + i], unit * scale[i], 5, "norm");
        expect_near(x_gradient[r * width + i], (to_float(gradient[r * width + i]) * scale[i] - unit * along) * factor,
                    5 * std::max(1.0, factor), "norm's gradient");
      }
    }
    for (int64_t i = 0; i < width; ++i) EXPECT_NEAR(scale_gradient[i], expected_scale_gradient[i], 1e-5);
  }
}

template <typename T>
void check_rotation(const RowKernels<T>& kernels) {
  for (const int64_t half : kLengths) {
    Rows<T> rows(half);
    const int64_t tokens = 2, heads = 3;
    const auto x = rows.make(tokens * heads * 2 * half, 1), cos = rows.make(tokens * half, 1),
               sin = rows.make(tokens * half, 1);
    for (const int direction : {1, -1}) {
      std::vector<T> out(x.size());
      kernels.rotate(x.data(), cos.data(), sin.data(), static_cast<float>(direction), tokens, heads, half, out.data());
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t h = 0; h < heads; ++h) {
          for (int64_t i = 0; i < half; ++i) {
            const int64_t first = (t * heads + h) * 2 * half + i;
            const double a = to_float(x[first]), b = to_float(x[first + half]), c = to_float(cos[t * half + i]),
                         s = direction * to_float(sin[t * half + i]);
            expect_near(out[first], a * c - b * s, 8, "rotation");
            expect_near(out[first + half], b * c + a * s, 8, "rotation");
          }
        }
      }
    }
  }
}

template <typename T>
void check_gate(const RowKernels<T>& kernels) {
  for (const int64_t count : kLengths) {
    Rows<T> rows(count);
    const auto gate = rows.make(count, 3), up = rows.make(count, 1), gradient = rows.make(count, 1);
    std::vector<T> out(gate.size()), gate_gradient(gate.size()), up_gradient(gate.size());
    kernels.gelu_gate(gate.data(), up.data(), count, out.data());
    kernels.gelu_gate_backward(gradient.data(), gate.data(), up.data(), count, gate_gradient.data(),
                               up_gradient.data());
    for (int64_t i = 0; i < count; ++i) {
      const double g = to_float(gate[i]), u = to_float(up[i]), d = to_float(gradient[i]);
      expect_near(out[i], gelu(g) * u, 10, "gate");
      expect_near(gate_gradient[i], d * u * gelu_slope(g), 10, "gate's gradient");
      expect_near(up_gradient[i], d * gelu(g), 10, "up's gradient");
    }
  }
}

template <typename T>
void check_attention(const RowKernels<T>& kernels) {
  for (const int64_t keys : kLengths) {
    for (const float softcap : {0.0f, 1.5f}) {
      for (const int64_t first : {int64_t{0}, keys / 3}) {
        ScoreRow row;
        row.keys = keys;
        row.first = first;
        row.last = std::max(first + 1, keys - keys / 4);
        row.scale = 0.4f;
        row.softcap = softcap;
        Rows<T> rows(keys);
        const auto given = rows.make(keys, 4), gradient = rows.make(keys, 1);
        const auto capped = [&](double raw) {
          return softcap > 0 ? softcap * std::tanh(raw * row.scale / softcap) : raw * row.scale;
        };
        double sum = 0, along = 0;
        for (int64_t i = row.first; i < row.last; ++i) sum += std::exp(capped(to_float(given[i])));
        for (int64_t i = row.first; i < row.last; ++i) {
          along += std::exp(capped(to_float(given[i]))) / sum * to_float(gradient[i]);
        }
        std::vector<T> weights = given, scores = given, score_gradient = gradient;
        std::vector<float> scratch(static_cast<size_t>(keys));
        const float log_sum = kernels.attention_weights(row, weights.data(), scratch.data());
        EXPECT_NEAR(log_sum, std::log(sum), 3e-6);
        kernels.attention_backward(row, log_sum, scores.data(), score_gradient.data(), scratch.data());
        for (int64_t i = 0; i < keys; ++i) {
          const bool visible = i >= row.first && i < row.last;
          const double value = capped(to_float(given[i]));
          const double weight = visible ? std::exp(value) / sum : 0;
          const double slope = row.scale * (softcap > 0 ? 1 - value * value / (softcap * softcap) : 1);
          expect_near(weights[i], weight, 1, "weights");
          expect_near(scores[i], weight, 1, "weights made again");
          expect_near(score_gradient[i], visible ? weight * (to_float(gradient[i]) - along) * slope : 0, 3,
                      "scores' gradient");
        }
      }
    }
  }
}

template <typename T>
void check_cross_entropy(const RowKernels<T>& kernels) {
  for (const int64_t vocabulary : {1, 5, 16, 33, 1000, 5003}) {
    for (const float softcap : {0.0f, 3.0f}) {
      Rows<T> rows(static_cast<uint64_t>(vocabulary));
      const auto given = rows.make(vocabulary, 5);
      const int64_t target = vocabulary / 2;
      const auto capped = [&](double raw) { return softcap > 0 ? softcap * std::tanh(raw / softcap) : raw; };
      double sum = 0;
      for (const T& logit : given) sum += std::exp(capped(to_float(logit)));
      for (const bool gradient_wanted : {true, false}) {
        std::vector<T> logits = given;
        std::vector<float> scratch(static_cast<size_t>(vocabulary));
        const double loss =
            kernels.cross_entropy(logits.data(), vocabulary, target, softcap, gradient_wanted, scratch.data());
        EXPECT_NEAR(loss, std::log(sum) - capped(to_float(given[target])), 3e-6);
        for (int64_t i = 0; i < vocabulary && gradient_wanted; ++i) {
          const double value = capped(to_float(given[i]));
          const double slope = softcap > 0 ? 1 - value * value / (softcap * softcap) : 1;
          expect_near(logits[i], (std::exp(value) / sum - (i == target ? 1 : 0)) * slope, 1, "logits' gradient");
        }
      }
    }
  }
}

template <typename T>
void check_not_a_number(const RowKernels<T>& kernels) {
  std::vector<T> logits(40, from_double<T>(0.5)), scores(40, from_double<T>(0.5));
  logits[21] = scores[21] = from_double<T>(std::numeric_limits<double>::quiet_NaN());
  if constexpr (std::is_same_v<T, Bf16>) logits[21].bits = scores[21].bits = 0x7fff;  // rounding up would overflow
  std::vector<float> scratch(40);
  ScoreRow row;
  row.keys = row.last = 40;
  EXPECT_TRUE(std::isnan(kernels.attention_weights(row, scores.data(), scratch.data())));
  EXPECT_TRUE(std::isnan(to_float(scores[0])));
  EXPECT_TRUE(std::isnan(kernels.cross_entropy(logits.data(), 40, 3, 0, true, scratch.data())));
  T x = from_double<T>(std::numeric_limits<double>::quiet_NaN()), one = from_double<T>(1), out = one;
  kernels.gelu_gate(&x, &one, 1, &out);
  EXPECT_TRUE(std::isnan(to_float(out)));
}

class Kernels : public ::testing::TestWithParam<int> {};

TEST_P(Kernels, EqualTheFormulasInFp64) {
  const CpuKernels* kernels = find_cpu_kernels(GetParam());
  if (kernels == nullptr) GTEST_SKIP() << "this processor lacks the instructions";
  const auto check = [](const auto& rows) {
    check_norm(rows);
    check_rotation(rows);
    check_gate(rows);
    check_attention(rows);
    check_cross_entropy(rows);
    check_not_a_number(rows);
  };
  check(kernels->wide);
  check(kernels->narrow);
}

TEST_P(Kernels, Transpose) {
  const CpuKernels* kernels = find_cpu_kernels(GetParam());
  if (kernels == nullptr) GTEST_SKIP() << "this processor lacks the instructions";
  for (const int64_t rows : kLengths) {
    for (const int64_t columns : kLengths) {
      const int64_t stride = columns + 3;
      std::vector<float> in(static_cast<size_t>(rows * stride)), out(static_cast<size_t>(rows * columns), -1);
      for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i);
      kernels->transpose(in.data(), rows, columns, stride, out.data());
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < columns; ++c) ASSERT_EQ(out[c * rows + r], in[r * stride + c]);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sets, Kernels, ::testing::Range(0, 3), [](const auto& given) {
  const CpuKernels* kernels = find_cpu_kernels(given.param);
  return kernels == nullptr ? "absent" + std::to_string(given.param) : std::string(kernels->name);
});

TEST(CpuKernels, TheBestIsTheLastThatRuns) {
  EXPECT_STREQ(cpu_kernels().name, find_cpu_kernels(find_cpu_kernels(2) ? 2 : find_cpu_kernels(1) ? 1 : 0)->name);
  EXPECT_EQ(find_cpu_kernels(3), nullptr);
  EXPECT_EQ(find_cpu_kernels(-1), nullptr);
}

}  // namespace
}  // namespace gemma_sft
