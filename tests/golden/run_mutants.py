#!/usr/bin/env python3
"""Removes one detail of the numbers at a time and looks whether a test notices.

    tests/golden/run_mutants.py [--work DIR] [--list] [NAME...]

The tracked files are copied to a scratch folder (kept with --work) and built there; a mutant is a change of a line or two
(removed_details.py), after which the programs that should notice are built and run, the first one that fails ends it. The checkout
itself is never touched. A mutant that does not compile is a mistake in the list, and ends the run.
The last line says how many were noticed; the exit status is 1 when one was not.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from removed_details import MUTANTS

ROOT = pathlib.Path(__file__).resolve().parents[2]


def copy_sources(scratch):
    files = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], check=True, stdout=subprocess.PIPE).stdout.split(b"\0")
    for name in filter(None, map(os.fsdecode, files)):
        source, target = ROOT / name, scratch / name
        if source.is_symlink() or not source.is_file():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_bytes() != source.read_bytes():  # what is as before is not compiled again
            shutil.copy2(source, target)


IGNORED = '#pragma GCC diagnostic ignored "-Wunused-{}"\n'
UNUSED = ("variable", "but-set-variable", "parameter", "function")
BUILD = pathlib.Path("build", "release")  # as deep as in a checkout: ccache then has what the checkout has compiled


def build(scratch, programs):
    return subprocess.run(["cmake", "--build", scratch / BUILD, "--parallel", os.environ.get("JOBS", "2"), "--target", *programs],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def mutate(scratch, edits):
    """Applies the edits and gives what the files held before."""
    before = {}
    for name, old, new in edits:
        path = scratch / name
        text = path.read_text()
        before.setdefault(path, text)
        if text.count(old) != 1:
            sys.exit("%s: %d places, expected one, have the text\n%s" % (name, text.count(old), old))
        path.write_text(text.replace(old, new))
    for path in before:  # what the change left without use is no error; the options stay, for ccache
        path.write_text("".join(map(IGNORED.format, UNUSED)) + path.read_text())
    return before


def run_program(scratch, program):
    """The first test that fails; None when none does."""
    try:
        run = subprocess.run([scratch / BUILD / "bin" / program, "--gtest_brief=1", "--gtest_fail_fast"], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, timeout=300, env=dict(os.environ, OMP_WAIT_POLICY="passive"))
    except subprocess.TimeoutExpired:
        return "(no end)"
    if run.returncode == 0:
        return None
    failed = [line.split("]")[1].split()[0].rstrip(",") for line in run.stdout.splitlines() if "[  FAILED  ]" in line and "." in line]
    return failed[0] if failed else "(exit %d)" % run.returncode


def try_mutant(scratch, edits, programs):
    """The program and the first test in it that noticed; None when none did."""
    before = mutate(scratch, edits)
    try:
        for program in programs:
            built = build(scratch, [program])
            if built.returncode:
                sys.exit("does not compile:\n" + built.stdout[-3000:])
            failed = run_program(scratch, program)
            if failed:
                return program, failed
    finally:
        for path, text in before.items():
            path.write_text(text)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, help="scratch folder, kept (default: a temporary one)")
    parser.add_argument("--list", action="store_true", help="only name the mutants")
    parser.add_argument("names", nargs="*", help="parts of names (default: all)")
    arguments = parser.parse_args()
    chosen = [m for m in MUTANTS if not arguments.names or any(part in m[0] for part in arguments.names)]
    if arguments.list:
        print("\n".join(name for name, _, _ in chosen))
        return
    scratch = arguments.work or pathlib.Path(tempfile.mkdtemp())
    try:
        copy_sources(scratch)
        subprocess.run(["cmake", "-S", scratch, "-B", scratch / BUILD, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
                        "-DGEMMA_SFT_BENCHMARKS=OFF"], check=True, stdout=subprocess.DEVNULL)
        every = sorted({program for _, _, programs in chosen for program in programs})
        built = build(scratch, every)
        if built.returncode:
            sys.exit(built.stdout[-3000:])
        for program in every:
            failed = run_program(scratch, program)
            if failed:
                sys.exit("%s fails without any change: %s" % (program, failed))
        noticed = 0
        for name, edits, programs in chosen:
            start = time.monotonic()
            found = try_mutant(scratch, edits, programs)
            noticed += found is not None
            print("%-44s %s (%.0f s)" % (name, "noticed by %s, %s" % found if found else "NOT NOTICED", time.monotonic() - start), flush=True)
        print("R4b details of the numbers taken away: %d/%d (seed 0; tests/golden/removed_details.py)" % (noticed, len(chosen)))
        sys.exit(0 if noticed == len(chosen) else 1)
    finally:
        if not arguments.work:
            shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
