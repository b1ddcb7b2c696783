#!/usr/bin/env bash
# cuda_stand_ins.sh SITE_PACKAGES: makes PyPI's torch wheel usable on a CPU without the CUDA libraries it links (several GB).
#
# The wheel's libraries are loaded with all symbols bound at once, so the libraries must exist and define what is asked of
# them; nothing calls these functions without a GPU. Each library that is not installed gets a stand-in that defines the
# symbols and ends the program should one be called after all.
set -euo pipefail
packages=$1
lib=$packages/torch/lib
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
nm -D --undefined-only "$lib"/*.so | awk '{ print $2 }' | sort -u >"$work/undefined"
mapfile -t needed < <(readelf -d "$lib"/*.so | sed -nE 's/.*\(NEEDED\).*\[(lib(cu|nccl|nv)[^]]*)\]/\1/p' | sort -u)
for name in "${needed[@]}"; do
  case $name in libcuda.so.*) continue ;; esac  # the driver: never linked, only looked up
  [ -z "$(find "$packages/nvidia" -name "$name" -print -quit)" ] || continue
  version=$name  # most of these libraries name their symbols' version after themselves
  case $name in
    libnvshmem_host.so.*) version=NVSHMEM ;;
    libcufile.so.*) version='' pattern='^cuFile' ;;
    libcusparseLt.so.*) version='' pattern='^cusparseLt' ;;
    libcurand.so.*) version='' pattern='^curand' ;;
    libnccl.so.*) version='' pattern='^nccl' ;;
  esac
  link=(-shared -fPIC -w -fno-builtin "-Wl,-soname,$name")
  if [ -n "$version" ]; then
    sed -n "s/@$version\$//p" "$work/undefined" >"$work/symbols"
    echo "$version { global: *; };" >"$work/stand_in.map"
    link+=("-Wl,--version-script,$work/stand_in.map")
  else
    { grep "$pattern" "$work/undefined" || true; } >"$work/symbols"
  fi
  { echo '#include <stdlib.h>'; sed 's/.*/void &(void) { abort(); }/' "$work/symbols"; } >"$work/stand_in.c"
  cc "${link[@]}" -o "$lib/$name" "$work/stand_in.c"
  echo "stand-in for $name with $(wc -l <"$work/symbols") symbols"
done
