#include "trainer/gpu_architectures.h"

#include <gtest/gtest.h>

#include "configs/error.h"

namespace gemma_sft {
namespace {

constexpr const char* kShipped = "80-real,86-real,89-real,90-real,100-real,120";

TEST(GpuArchitectures, TheShippedOnesRunOnTheChipsTheyAreNamedAfter) {
  for (const Capability chip : {Capability{8, 0}, {8, 6}, {8, 9}, {9, 0}, {10, 0}, {12, 0}}) {
    EXPECT_TRUE(runs_on(kShipped, chip)) << chip.major << "." << chip.minor;
  }
}

TEST(GpuArchitectures, CodeRunsOnLaterMinorVersionsOfItsMajorOne) {
  EXPECT_TRUE(runs_on(kShipped, {8, 7}));   // Jetson Orin
  EXPECT_TRUE(runs_on(kShipped, {10, 3}));  // B300
  EXPECT_FALSE(runs_on("86-real", {8, 0}));
  EXPECT_FALSE(runs_on("80-real", {9, 0}));
}

TEST(GpuArchitectures, OldChipsAreRefusedAndNewOnesCompileThePtx) {
  EXPECT_FALSE(runs_on(kShipped, {7, 5}));  // T4
  EXPECT_FALSE(runs_on(kShipped, {7, 0}));  // V100
  EXPECT_TRUE(runs_on(kShipped, {12, 1}));
  EXPECT_TRUE(runs_on(kShipped, {13, 0}));
  EXPECT_FALSE(runs_on("80-real,120-real", {13, 0}));
  EXPECT_TRUE(runs_on("80-virtual", {9, 0}));
}

TEST(GpuArchitectures, ALetterBindsToOneChip) {
  EXPECT_TRUE(runs_on("90a-real", {9, 0}));
  EXPECT_FALSE(runs_on("90a", {10, 0}));
}

TEST(GpuArchitectures, TheyAreNamedInAMessage) {
  EXPECT_EQ(describe_architectures("80-real,90-real,120"), "8.0, 9.0 and 12.0 or newer");
  EXPECT_THROW(describe_architectures("80-reel"), Error);
  EXPECT_THROW(runs_on("x", {9, 0}), Error);
}

}  // namespace
}  // namespace gemma_sft
