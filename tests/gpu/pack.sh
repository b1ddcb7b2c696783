#!/usr/bin/env bash
# pack.sh [--architecture LIST] BUILD_DIR OUT: what tests/gpu/run.sh and tests/benchmarks/gpu/run.sh need of a CUDA build, small
# enough to carry to a GPU machine that can build nothing: the programs, stripped, and the libraries they load other than
# LibTorch's, CUDA's and the C library. There:
#   tests/gpu/run.sh --libtorch SITE_PACKAGES/torch OUT
# with a LibTorch of the same version, such as that machine's Python has (torch 2.11.0 for CUDA 13).
#   BUILD_DIR       of ./bootstrap.sh build --cuda; the programs that it leaves out are built here (JOBS limits the compilers)
#   --architecture  as CMAKE_CUDA_ARCHITECTURES, 90-real for an H100 or H200: BUILD_DIR is built for this alone from now on,
#                   a sixth of the kernels' code
set -euo pipefail
fail() { echo "pack.sh: $*" >&2; exit 1; }
programs=(gemma-sft gemma-sft-engine gpu_test gpu_kernels_test gpu_benchmark golden_test golden_training_test training_flops_of)
most=64  # MiB; more is awkward to carry
architecture='' jobs=()
if [ "${1:-}" = --architecture ]; then
  architecture=${2:?--architecture needs one, such as 90-real}
  shift 2
fi
[ $# -eq 2 ] || { sed -n 2,9p "$0" >&2; exit 2; }
build=$1 out=$2
grep -Eqi '^GEMMA_SFT_CUDA:[A-Z]+=(ON|TRUE|YES|1)$' "$build/CMakeCache.txt" 2>/dev/null ||
  fail "$build is no CUDA build; ./bootstrap.sh build --cuda makes build/cuda"
if [ -n "$architecture" ]; then
  cmake "-DCMAKE_CUDA_ARCHITECTURES=$architecture" "$build" >/dev/null || fail "$build could not be configured for $architecture"
fi
if [ -n "${JOBS:-}" ]; then jobs=(--parallel "$JOBS"); fi
cmake --build "$build" ${jobs[@]+"${jobs[@]}"} --target "${programs[@]}" >&2 ||
  fail "this failed: cmake --build $build --target ${programs[*]} (they need GEMMA_SFT_TESTS and GEMMA_SFT_BENCHMARKS, on by default)"
mkdir -p "$out/bin" "$out/lib"
for program in "${programs[@]}"; do
  cp "$build/bin/$program" "$out/bin/"
  strip "$out/bin/$program"
  ldd "$build/bin/$program" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' |
    { grep -vE '/(torch|nvidia)/|/lib(c|m|dl|rt|pthread|resolv)\.so' || true; } | while read -r library; do
    cp -uL "$library" "$out/lib/"
  done
done
size=$(du -sm "$out" | cut -f1)
echo "$out: $size MiB"
if [ "$size" -gt "$most" ]; then
  echo "pack.sh: that is more than $most MiB; --architecture 90-real, for instance, packs the kernels of one GPU only" >&2
fi
