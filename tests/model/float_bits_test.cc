#include "model/float_bits.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace gemma_sft {
namespace {

// The value of fp16 bits, from the definition of the format.
double fp16_value(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const double mantissa = bits & 1023;
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

TEST(FloatBits, EveryFiniteFp16IsKeptAndMiddlesGoToTheEvenNeighbour) {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const auto low = static_cast<uint16_t>(bits), high = static_cast<uint16_t>(bits + 1);
    const auto value = static_cast<float>(fp16_value(low));
    ASSERT_EQ(to_fp16_bits(value), low);
    ASSERT_EQ(to_fp16_bits(-value), low | 0x8000);
    const auto middle = static_cast<float>((fp16_value(low) + fp16_value(high)) / 2);
    ASSERT_EQ(to_fp16_bits(middle), (bits & 1) != 0 ? high : low) << bits;
    ASSERT_EQ(to_fp16_bits(std::nextafter(middle, 0.0f)), low);
    ASSERT_EQ(to_fp16_bits(std::nextafter(middle, 1e9f)), high);
  }
}

TEST(FloatBits, Fp16BeyondItsRangeIsInfinite) {
  EXPECT_EQ(to_fp16_bits(65504.0f), 0x7bff);
  EXPECT_EQ(to_fp16_bits(65519.99f), 0x7bff);
  EXPECT_EQ(to_fp16_bits(65520.0f), 0x7c00);
  EXPECT_EQ(to_fp16_bits(-std::numeric_limits<float>::infinity()), 0xfc00);
  EXPECT_EQ(to_fp16_bits(std::numeric_limits<float>::quiet_NaN()) & 0x7fff, 0x7e00);
}

TEST(FloatBits, EveryFiniteBf16IsKeptAndMiddlesGoToTheEvenNeighbour) {
  for (uint32_t bits = 0; bits < 0x7f7f; ++bits) {
    const auto value = std::bit_cast<float>(bits << 16);
    ASSERT_EQ(to_bf16_bits(value), bits);
    ASSERT_EQ(to_bf16_bits(-value), bits | 0x8000);
    const auto middle = std::bit_cast<float>((bits << 16) | 0x8000u);
    ASSERT_EQ(to_bf16_bits(middle), (bits & 1) != 0 ? bits + 1 : bits);
    ASSERT_EQ(to_bf16_bits(std::bit_cast<float>((bits << 16) | 0x7fffu)), bits);
    ASSERT_EQ(to_bf16_bits(std::bit_cast<float>((bits << 16) | 0x8001u)), bits + 1);
  }
  EXPECT_EQ(to_bf16_bits(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_TRUE(std::isnan(std::bit_cast<float>(uint32_t{to_bf16_bits(std::bit_cast<float>(0x7f800001u))} << 16)));
}

}  // namespace
}  // namespace gemma_sft
