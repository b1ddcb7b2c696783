#!/usr/bin/env bash
# pack.sh BUILD_DIR OUT: what tests/gpu/run.sh needs of a CUDA build, small enough to carry to a GPU machine that can build
# nothing: the programs, stripped, and the libraries they load other than LibTorch's, CUDA's and the C library. There:
#   tests/gpu/run.sh --libtorch SITE_PACKAGES/torch OUT
# with a LibTorch of the same version, such as that machine's Python has (torch 2.11.0 for CUDA 13).
set -euo pipefail
[ $# -eq 2 ] || { sed -n 2,6p "$0" >&2; exit 2; }
build=$1 out=$2
mkdir -p "$out/bin" "$out/lib"
for program in gemma-sft gemma-sft-engine gpu_test gpu_kernels_test gpu_benchmark golden_test golden_training_test training_flops_of; do
  cp "$build/bin/$program" "$out/bin/"
  strip "$out/bin/$program"
  ldd "$build/bin/$program" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' |
    { grep -vE '/(torch|nvidia)/|/lib(c|m|dl|rt|pthread|resolv)\.so' || true; } | while read -r library; do
    cp -uL "$library" "$out/lib/"
  done
done
du -sh "$out"
