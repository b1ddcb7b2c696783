"""The safetensors package reads what gemma-sft writes, and gemma-sft accepts no file that the package refuses.

The first: every tensor of every .safetensors file below --run. The second: --count files with mutated headers, made from
--seed by tests/data/files/make_safetensors_cases.py, through the reader of gemma-sft (data_files_test, in the build folder).
"""

import argparse
import os
import pathlib
import subprocess
import sys

from safetensors import safe_open

MAKE_CASES = pathlib.Path(__file__).resolve().parents[1] / "data" / "files" / "make_safetensors_cases.py"
TEST = "SafetensorsTest.NeverAcceptsWhatTheReferenceReaderRefusesAndReadsTheSameWhereBothAccept"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--run", type=pathlib.Path, required=True, help="a run's folder, with checkpoints")
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    tensors = size = 0
    files = sorted(arguments.run.rglob("*.safetensors"))
    for path in files:
        with safe_open(path, "pt") as file:
            for name in file.keys():
                value = file.get_tensor(name)
                tensors, size = tensors + 1, size + value.numel()
    if not any("checkpoint-" in str(path) for path in files):
        sys.exit("%s: no checkpoint below it" % arguments.run)
    print("  safetensors reads %d tensors (%d numbers) of %d files" % (tensors, size, len(files)))

    test = arguments.bin / "data_files_test"
    if not test.exists():
        print("  mutated headers: skipped, %s is not built" % test)
        return
    cases = arguments.work / "cases.jsonl"
    with open(cases, "wb") as file:
        subprocess.run([sys.executable, MAKE_CASES, "--count", str(arguments.count), "--seed", str(arguments.seed)], check=True,
                       stdout=file, stderr=subprocess.DEVNULL)
    done = subprocess.run([test, "--gtest_filter=" + TEST], env=dict(os.environ, GEMMA_SFT_SAFETENSORS_CASES=str(cases)),
                          stdout=subprocess.PIPE, text=True)
    counted = [line for line in done.stdout.splitlines() if "read alike" in line]
    if done.returncode or not counted:
        sys.exit(done.stdout[-4000:])
    print("  seed %d: %s; 0 accepted only here" % (arguments.seed, counted[0]))


if __name__ == "__main__":
    main()
