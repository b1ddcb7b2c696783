#!/usr/bin/env bash
# fetch.sh [--no-torch] [--no-tools] [--nvcc] [--cuda-build | --cuda] [--plan]
# Brings the pinned third-party libraries that the system's packages do not have into a cache outside the checkout, and
# prints where they are as NAME=FOLDER lines on stdout (progress goes to stderr). Where all is there it only prints.
#   --no-torch     without LibTorch
#   --no-tools     without the tools of the tests
#   --nvcc         the pinned CUDA compiler by itself: enough to compile our kernels, which see no LibTorch
#   --cuda-build   LibTorch with its CUDA libraries, and the pinned CUDA compiler: enough to build for a GPU without one
#   --cuda         as --cuda-build, and all libraries that running on a GPU needs
#   --plan         only say what would be downloaded, and its size
# The cache is $GEMMA_SFT_CACHE, else $XDG_CACHE_HOME/gemma-sft, else ~/.cache/gemma-sft:
#   downloads/<sha256>/<file>            as downloaded, checked by pip against the hash
#   libtorch-<version>-<set>-<key>/      unpacked; the key hashes the downloads and the way they are unpacked
#   clang-format-<version>-<key>/        unpacked
#   postgres-<version>-<key>/            unpacked; the version is that of the package
#   nvcc-<version>-<key>/                unpacked: the compiler, with CUDA's headers
#   sentencepiece-<version>-<key>/       built; the key hashes source, flags, compiler and this recipe
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${GEMMA_SFT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gemma-sft}
say() { printf '%s\n' "third_party: $*" >&2; }
die() { say "$*"; exit 1; }

torch=yes tools=yes nvcc=no set_name=cpu plan=no
for arg in "$@"; do
  case $arg in
    --no-torch) torch=no ;;
    --no-tools) tools=no ;;
    --nvcc) nvcc=yes ;;
    --cuda-build) set_name=cuda-build ;;
    --cuda) set_name=cuda ;;
    --plan) plan=yes ;;
    *) sed -n '2,10p' "$0" >&2; exit 64 ;;
  esac
done

# Prints "name version sha256 bytes" for each requirement of the named files.
requirements() {
  local name
  for name in "$@"; do
    sed -nE 's/^([A-Za-z0-9_-]+)==([^ ]+) --hash=sha256:([0-9a-f]{64}) +# ([0-9]+) bytes$/\1 \2 \3 \4/p' \
      "$here/requirements-$name.txt"
  done
}
short_hash() { sha256sum | cut -c1-16; }
megabytes() { awk -v n="$1" 'BEGIN { printf "%.1f MB", n / 1e6 }'; }
downloaded() { compgen -G "$cache/downloads/$1/*" | head -n 1; }

torch_sets=(cpu)
case $set_name in
  cuda-build) torch_sets+=(cuda-build) ;;
  cuda) torch_sets+=(cuda-build cuda) ;;
esac

# ---- where things will be -------------------------------------------------------------------------------------------
torch_version=$(requirements cpu | awk '$1 == "torch" { print $2 }')
# Files of torch that are unpacked. The CPU set leaves out everything that needs a GPU; no set takes the Python binding.
torch_take=('torch/include/*' 'torch/lib/*.so*')
torch_leave=('torch/lib/libtorch_python.so' 'torch/lib/libshm.so' 'torch/lib/libtorch_global_deps.so')
if [ "$set_name" = cpu ]; then
  torch_leave+=('torch/lib/libtorch.so' 'torch/lib/libtorch_cuda*' 'torch/lib/libc10_cuda.so'
    'torch/lib/libcaffe2_nvrtc.so' 'torch/lib/libtorch_nvshmem.so')
fi
torch_key=$({ requirements "${torch_sets[@]}"; printf '%s\n' "layout 1" "${torch_take[@]}" "${torch_leave[@]}"; } |
  awk '{ print $1, $2, $3 }' | short_hash)
torch_dir=$cache/libtorch-$torch_version-$set_name-$torch_key

cxx=${CXX:-c++}
spm_version=$(requirements source | awk '$1 == "sentencepiece" { print $2 }')
spm_flags=(-DCMAKE_BUILD_TYPE=Release '-DCMAKE_CXX_FLAGS_RELEASE=-O2 -DNDEBUG' -DCMAKE_CXX_VISIBILITY_PRESET=hidden
  -DCMAKE_VISIBILITY_INLINES_HIDDEN=ON -DCMAKE_POSITION_INDEPENDENT_CODE=ON -DCMAKE_POLICY_VERSION_MINIMUM=3.5
  -DCMAKE_POLICY_DEFAULT_CMP0063=NEW -DSPM_ENABLE_SHARED=OFF -DSPM_ENABLE_TCMALLOC=OFF -DSPM_DISABLE_EMBEDDED_DATA=ON)
spm_key=$({ requirements source; printf '%s\n' "recipe 1" "${spm_flags[@]}"
  "$cxx" --version 2>/dev/null | head -n 1 || true; } | short_hash)
spm_dir=$cache/sentencepiece-$spm_version-$spm_key

read -r _ format_version format_sha _ < <(requirements tools | grep '^clang-format ')
format_dir=$cache/clang-format-$format_version-$(echo "$format_sha" | short_hash)
read -r _ postgres_version postgres_sha _ < <(requirements tools | grep '^pgserver ')
postgres_dir=$cache/postgres-$postgres_version-$(echo "$postgres_sha layout 1" | short_hash)

nvcc_requirements() { requirements cuda-build; requirements cpu | awk '$1 ~ /^nvidia-cuda-(runtime|crt)$/'; }
nvcc_dir=$cache/nvcc-$(requirements cuda-build | awk '$1 == "nvidia-cuda-nvcc" { print $2 }')-$(nvcc_requirements |
  awk '{ print $1, $2, $3 }' | short_hash)

# ---- what is missing ------------------------------------------------------------------------------------------------
needed=()
if [ "$torch" = yes ] && [ ! -d "$torch_dir" ]; then needed+=("${torch_sets[@]}"); fi
[ -d "$spm_dir" ] || needed+=(source)
if [ "$tools" = yes ] && { [ ! -d "$format_dir" ] || [ ! -d "$postgres_dir" ]; }; then needed+=(tools); fi
if [ "$nvcc" = yes ] && [ ! -d "$nvcc_dir" ]; then needed+=(nvcc); fi
# Each requirement once, in the order of the sets.
needed_requirements() {
  local name
  for name in "${needed[@]}"; do
    if [ "$name" = nvcc ]; then nvcc_requirements; else requirements "$name"; fi
  done | awk '!seen[$0]++'
}
missing=() total=0
if [ ${#needed[@]} -gt 0 ]; then
  while read -r name version sha bytes; do
    if [ -z "$(downloaded "$sha")" ]; then
      missing+=("$name $version $sha $bytes")
      total=$((total + bytes))
    fi
  done < <(needed_requirements)
fi
if [ ${#missing[@]} -gt 0 ]; then
  say "to download with pip, $(megabytes "$total") in all, into $cache:"
  for line in "${missing[@]}"; do
    read -r name version _ bytes <<<"$line"
    say "  $name $version, $(megabytes "$bytes")"
  done
fi
[ "$plan" = no ] || exit 0

# ---- download and make ----------------------------------------------------------------------------------------------
download() {
  local name version sha rest file dir=$work/download options
  python3 -m pip --version >/dev/null 2>&1 || die "python3 with pip is needed to download; ./bootstrap.sh installs it"
  for line in "${missing[@]}"; do
    read -r name version sha rest <<<"$line"
    [ -z "$(downloaded "$sha")" ] || continue
    rm -rf "$dir" && mkdir -p "$dir"
    printf '%s==%s --hash=sha256:%s\n' "$name" "$version" "$sha" >"$work/requirement.txt"
    if grep -q "^$name==" "$here/requirements-source.txt"; then
      # pip asks the package's build tool, setuptools, for its metadata. Where the system has one that is new enough, no
      # other is downloaded for that.
      options=(--no-binary=:all:)
      if python3 -c 'import setuptools as s, wheel, sys; sys.exit(int(s.__version__.split(".")[0]) < 61)' 2>/dev/null; then
        options+=(--no-build-isolation)
      fi
    else
      # Only unzipped, never installed, so that the Python of this machine does not matter.
      options=(--only-binary=:all: --python-version 3.11 --implementation cp --abi cp311)
      for platform in 2_28 2_27 2_25 2_18 2_17 2_12 2_5; do options+=(--platform "manylinux_${platform}_x86_64"); done
      options+=(--platform manylinux2014_x86_64)
    fi
    say "downloading $name $version"
    python3 -m pip download --quiet --no-deps --require-hashes --no-cache-dir --disable-pip-version-check \
      "${options[@]}" -d "$dir" -r "$work/requirement.txt" >&2 ||
      die "downloading $name $version failed; check the network and pip's settings, then run the same command again"
    file=$(compgen -G "$dir/*" | head -n 1)
    echo "$sha  $file" | sha256sum --quiet --check - >&2 || die "$file is not what was pinned"
    mkdir -p "$cache/downloads"
    rm -rf "$cache/downloads/$sha" && mv "$dir" "$cache/downloads/$sha"
  done
}

make_torch() {
  local name version sha bytes out=$work/libtorch
  [ "$(uname -m)" = x86_64 ] || die "the pinned LibTorch is for x86_64; give an own one with -DLIBTORCH_DIR="
  command -v unzip >/dev/null || die "unzip is needed; ./bootstrap.sh installs it"
  mkdir -p "$out"
  while read -r name version sha bytes; do
    say "unpacking $name $version"
    if [ "$name" = torch ]; then
      unzip -q "$(downloaded "$sha")" "${torch_take[@]}" -x "${torch_leave[@]}" -d "$out" >&2
    else
      unzip -qo "$(downloaded "$sha")" 'nvidia/*' -d "$out" >&2
    fi
  done < <(requirements "${torch_sets[@]}")
  if [ -d "$out/nvidia/cu13/bin" ]; then finish_nvcc "$out"; fi
  mv -T "$out" "$torch_dir"
}

# finish_nvcc FOLDER: what unzipping the compiler's wheels leaves to do.
finish_nvcc() {
  find "$1/nvidia/cu13/bin" "$1/nvidia/cu13/nvvm/bin" -type f -exec chmod +x {} +
  # The wheels carry libcudart.so.13 alone; nvcc's own linking asks for libcudart.so.
  ln -sf libcudart.so.13 "$1/nvidia/cu13/lib/libcudart.so"
}

make_nvcc() {
  local name version sha bytes out=$work/nvcc
  mkdir -p "$out"
  while read -r name version sha bytes; do
    say "unpacking $name $version"
    unzip -qo "$(downloaded "$sha")" 'nvidia/*' -d "$out" >&2
  done < <(nvcc_requirements)
  finish_nvcc "$out"
  mv -T "$out" "$nvcc_dir"
}

make_sentencepiece() {
  local sha source build=$work/build out=$work/sentencepiece generator=()
  read -r _ _ sha _ < <(requirements source)
  say "building sentencepiece $spm_version (once per compiler; about two minutes on two cores)"
  tar -xzf "$(downloaded "$sha")" -C "$work"
  source=$work/sentencepiece-$spm_version/sentencepiece
  if command -v ninja >/dev/null; then generator=(-G Ninja); fi
  { cmake -S "$source" -B "$build" "${generator[@]}" -DCMAKE_CXX_COMPILER="$cxx" "${spm_flags[@]}" &&
    cmake --build "$build" --parallel "$(nproc)" --target sentencepiece-static sentencepiece_train-static; } \
    >"$work/log" 2>&1 || { tail -n 40 "$work/log" >&2; die "building sentencepiece failed, see above"; }
  mkdir -p "$out/lib" "$out/include" "$out/include-model-proto"
  cp "$build/src/libsentencepiece.a" "$build/src/libsentencepiece_train.a" "$out/lib/"
  cp "$source/src/sentencepiece_processor.h" "$source/src/sentencepiece_trainer.h" "$out/include/"
  # The model file's own format and its protobuf-lite, kept apart: LibTorch brings another google/protobuf.
  cp "$source/src/builtin_pb/sentencepiece_model.pb.h" "$out/include-model-proto/"
  (cd "$source/third_party/protobuf-lite" && find google -name '*.h' -o -name '*.inc') |
    tar -C "$source/third_party/protobuf-lite" -cf - -T - | tar -C "$out/include-model-proto" -xf -
  cp "$source/LICENSE" "$out/"
  mv -T "$out" "$spm_dir"
}

make_clang_format() {
  local out=$work/clang-format
  mkdir -p "$out"
  unzip -qj "$(downloaded "$format_sha")" 'clang_format/data/bin/clang-format' -d "$out" >&2
  chmod +x "$out/clang-format"
  mv -T "$out" "$format_dir"
}

make_postgres() {
  local out=$work/postgres
  mkdir -p "$out"
  unzip -q "$(downloaded "$postgres_sha")" 'pgserver/pginstall/bin/*' 'pgserver/pginstall/lib/*.so*' \
    'pgserver/pginstall/share/*' 'pgserver.libs/*' -d "$out" >&2
  chmod +x "$out"/pgserver/pginstall/bin/*
  chmod -R a+rX "$out"  # the server refuses to run as root, so that others must be able to read it
  mv -T "$out" "$postgres_dir"
}

if [ ${#needed[@]} -gt 0 ]; then
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  flock -n 9 || { say "another build is filling the cache; waiting for it"; flock 9; }
  work=$(mktemp -d "$cache/work.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  if [ ${#missing[@]} -gt 0 ]; then download; fi
  if [ "$torch" = yes ] && [ ! -d "$torch_dir" ]; then make_torch; fi
  if [ "$tools" = yes ] && [ ! -d "$format_dir" ]; then make_clang_format; fi
  if [ "$tools" = yes ] && [ ! -d "$postgres_dir" ]; then make_postgres; fi
  if [ "$nvcc" = yes ] && [ ! -d "$nvcc_dir" ]; then make_nvcc; fi
  [ -d "$spm_dir" ] || make_sentencepiece
fi
[ "$torch" = no ] || echo "LIBTORCH_DIR=$torch_dir/torch"
[ "$nvcc" = no ] || echo "CUDA_DIR=$nvcc_dir/nvidia/cu13"
[ "$tools" = no ] || echo "CLANG_FORMAT=$format_dir/clang-format"
[ "$tools" = no ] || echo "POSTGRES_DIR=$postgres_dir/pgserver/pginstall"
echo "SENTENCEPIECE_DIR=$spm_dir"
