#!/usr/bin/env python3
"""Prints the figures of README.md: of each case the noise floor, the tolerance and how far this build is from the reference.

    python3 tests/golden/figures.py BIN_DIR

Runs golden_test and golden_training_test of BIN_DIR. Needs no package.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent


def measured(bin_dir):
    """case -> test -> property -> number"""
    results = {}
    for program in ("golden_test", "golden_training_test"):
        with tempfile.TemporaryDirectory() as folder:
            report = pathlib.Path(folder) / "report.json"
            subprocess.run([bin_dir / program, "--gtest_output=json:%s" % report], check=True, stdout=subprocess.DEVNULL)
            for suite in json.loads(report.read_text())["testsuites"]:
                for test in suite["testsuite"]:
                    name, _, case = test["name"].partition("/")
                    if not case:
                        continue
                    numbers = {key: float(value) for key, value in test.items() if isinstance(value, str) and value.endswith("e-6")}
                    results.setdefault(case.replace("_", "-"), {})[name] = numbers
    return results


def triple(ours, tolerance, floor):
    return "%.1e / %.1e / %.1e" % (ours, tolerance, floor)


def weakest(details, tolerance):
    return "%s, %.0f" % min(((key, value / tolerance) for key, value in details.items()), key=lambda pair: pair[1])


def table(title, header, rows):
    print("\n%s\n\n| Case | %s |\n|%s" % (title, " | ".join(header), "---|" * (len(header) + 1)))
    for name, cells in rows:
        print("| `%s` | %s |" % (name, " | ".join(cells)))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    found = measured(pathlib.Path(sys.argv[1]).resolve())
    cases = {name: json.loads((HERE / name / "case.json").read_text()) for name in sorted(found)}

    def larger(numbers, key):
        return max(numbers["packed_" + key], numbers["padded_" + key])

    forward = "LogitsLossAndEveryGradientEqualTheReference"
    table("Forward and backward: our error / tolerance / noise floor, the larger of packed and padded; last, the detail that moves the logits "
          "least, in tolerances.", ["logits", "loss", "gradients", "packed against padded", "weakest detail"],
          [(name, [triple(larger(found[name][forward], key), case["tolerances"][key], case["noise_floor"][key])
                   for key in ("logits_abs", "loss_abs", "grad_rel")] +
            ["%.1e / 1e-5" % found[name]["PackedEqualsPaddedTokenByToken"]["logprob_abs"]] +
            [weakest(case["details"], case["tolerances"]["logits_abs"])])
           for name, case in cases.items()])
    for kind, test, prefix in (("training", "TwentyStepsEqualTheReference", True),
                               ("lora", "TwentyStepsOfAnAdapterAndItsMergedModelEqualTheReference", False)):
        def cells(name, case):
            numbers, facts = found[name][test], case[kind]
            value = lambda key: larger(numbers, key) if prefix else numbers[key]
            keys = ["loss_abs", "grad_norm_rel", "weights_abs"] + ([] if prefix else ["merged_logits_abs"])
            return [triple(value(key), facts["tolerances"][key], facts["noise_floor"][key]) for key in keys] + (
                [] if prefix else ["%.1e / 1e-4" % numbers["merged_against_adapter"]]) + [
                weakest(facts["details"], facts["tolerances"]["weights_abs"])]
        table("Twenty steps of %s: our error / tolerance / noise floor; last, the detail that moves the weights least, in "
              "tolerances." % ("all weights" if prefix else "an adapter"),
              ["losses", "norms", "weights"] + ([] if prefix else ["merged logits", "merged against adapter"]) + ["weakest detail"],
              [(name, cells(name, case)) for name, case in cases.items()])
    test = "Bf16CostsWhatItCostsTheReference"
    table("bf16 against the reference in fp32: ours in bf16, ours in bf16_mixed / bound / transformers in pure bf16.",
          ["logits, root mean square", "logits, largest", "loss", "gradients, root mean square"],
          [(name, ["%.1e, %.1e / %.1e / %.1e" % (found[name][test]["bf16_" + key], found[name][test]["bf16_mixed_" + key],
                                                case["bf16"]["bounds"][key], case["bf16"]["bf16"][key])
                   for key in ("logits_rms", "logits_abs", "loss_abs", "grad_rms_rel")]) for name, case in cases.items()])


if __name__ == "__main__":
    main()
