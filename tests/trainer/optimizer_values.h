// Made by make_optimizer_values.py.
#pragma once

inline constexpr double kWeights[] = {0.5, -1.25, 2.0, 0.001};
inline constexpr double kGradients0[] = {12.0, -3.0, 0.5, 0.001};
inline constexpr double kGradients1[] = {-8.0, 6.0, 0.25, 0.002};
inline constexpr double kGradients2[] = {4.0, 1.0, -1.0, -0.005};
inline constexpr double kRates[] = {0.01, 0.005, 0.0025};
inline constexpr double kDivisor = 10.0, kBeta1 = 0.9, kBeta2 = 0.98, kEpsilon = 1e-06;
inline constexpr double kDecayedWeights[] = {0.4877090637594164, -1.2405829058382576, 1.982349415150194,
                                             -0.012986566464934172};
inline constexpr double kPlainWeights[] = {0.4885759465931546, -1.2427622698359353, 1.9858389982335718,
                                           -0.012993437325262081};
inline constexpr double kMoments[] = {0.06519999999999998, 0.039699999999999985, -0.0036999999999999993,
                                      -2.3899999999999995e-05};
inline constexpr double kSquaredMoments[] = {0.043403520000000036, 0.008984720000000007, 0.00026027000000000027,
                                             5.976080000000006e-09};
