#!/usr/bin/env python3
"""Writes optimizer_values.h: weights after AdamW steps, by the formulas of Loshchilov & Hutter (torch.optim.AdamW's), in doubles.

    python3 make_optimizer_values.py > optimizer_values.h
"""
import math

WEIGHTS = [0.5, -1.25, 2.0, 1e-3]
GRADIENTS = [[12.0, -3.0, 0.5, 1e-3], [-8.0, 6.0, 0.25, 2e-3], [4.0, 1.0, -1.0, -5e-3]]  # sums over DIVISOR targets
DIVISOR = 10.0
RATES = [1e-2, 5e-3, 2.5e-3]
BETA1, BETA2, EPSILON = 0.9, 0.98, 1e-6


def train(decay):
    weights = list(WEIGHTS)
    m, v = [0.0] * 4, [0.0] * 4
    for step, (gradient, rate) in enumerate(zip(GRADIENTS, RATES), start=1):
        for i in range(4):
            g = gradient[i] / DIVISOR
            m[i] = BETA1 * m[i] + (1 - BETA1) * g
            v[i] = BETA2 * v[i] + (1 - BETA2) * g * g
            weights[i] -= rate * decay * weights[i]
            m_hat = m[i] / (1 - BETA1 ** step)
            v_hat = v[i] / (1 - BETA2 ** step)
            weights[i] -= rate * m_hat / (math.sqrt(v_hat) + EPSILON)
    return weights, m, v


def row(name, values):
    print("inline constexpr double %s[] = {%s};" % (name, ", ".join(repr(x) for x in values)))


print("// Made by make_optimizer_values.py.\n#pragma once\n")
row("kWeights", WEIGHTS)
for i, gradient in enumerate(GRADIENTS):
    row("kGradients%d" % i, gradient)
row("kRates", RATES)
print("inline constexpr double kDivisor = %r, kBeta1 = %r, kBeta2 = %r, kEpsilon = %r;" % (DIVISOR, BETA1, BETA2, EPSILON))
decayed, m, v = train(0.1)
plain, _, _ = train(0.0)
row("kDecayedWeights", decayed)
row("kPlainWeights", plain)
row("kMoments", m)
row("kSquaredMoments", v)
