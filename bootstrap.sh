#!/usr/bin/env bash
# One command from a fresh Debian 12 or Ubuntu (22.04 or newer) machine to a running gemma-sft. See ./bootstrap.sh --help.
set -euo pipefail
root=$(cd "$(dirname "$0")" && pwd)
export HOME=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}
cache=${GEMMA_SFT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gemma-sft}

usage() {
  cat <<'END'
usage: ./bootstrap.sh COMMAND [OPTION]...

  demo [--seed N]...      build, then train a tiny Gemma from nothing and show what it learnt (about 2 minutes)
  test                    build, then run every check and test
  test-tunix              build, then run the tests that train with the real google-tunix (its own Python environment)
  test-long [--seed N]    build, then run the counted suites with many more cases (hours); prints a table of N/N
  build [--cuda]          build only; --cuda: for NVIDIA GPUs too (several GB of libraries)
  install PREFIX [--cuda] build and install below PREFIX
  clean-cache             remove the downloaded and built third-party libraries

Run as root, or as a user who may use sudo; neither is needed once the packages below are installed. What is missing is
installed first, and its size printed before anything is downloaded. Packages come from apt, LibTorch and sentencepiece
from PyPI (pinned by hash in third_party/), kept in GEMMA_SFT_CACHE (default: ~/.cache/gemma-sft) for every later clone.
JOBS=N limits how many compilers run at once.
END
}
say() { printf '%s\n' "bootstrap: $*" >&2; }
die() { say "$*"; exit 1; }

# ---- packages -------------------------------------------------------------------------------------------------------
have_package() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

wants_python=no  # for tests that make a virtual environment of their own

# missing_packages: what apt has to bring, one per line. A tool that is there already counts, wherever it came from.
missing_packages() {
  local pair library
  for pair in g++:g++ cmake:cmake ninja:ninja-build ccache:ccache; do
    command -v "${pair%%:*}" >/dev/null || echo "${pair##*:}"
  done
  for library in libyaml-cpp-dev nlohmann-json3-dev libcli11-dev libfmt-dev libspdlog-dev libssl-dev \
    libcurl4-openssl-dev libpq-dev libgtest-dev libgmock-dev libbenchmark-dev; do
    have_package "$library" || echo "$library"
  done
  if [ "$wants_python" = yes ] && ! python3 -c 'import ensurepip' >/dev/null 2>&1; then printf '%s\n' python3 python3-venv; fi
  if [ "$wants_python" = yes ]; then command -v openssl >/dev/null || echo openssl; fi
  if [ -n "$("$root/third_party/fetch.sh" "$@" --plan 2>&1)" ]; then  # something is to be downloaded with pip
    command -v unzip >/dev/null || echo unzip
    python3 -m pip --version >/dev/null 2>&1 || printf '%s\n' python3 python3-pip
    [ -d /etc/ssl/certs ] || echo ca-certificates
  fi
}

# install_packages FETCH_OPTION...: sizes first, then apt.
install_packages() {
  local packages as_root=()
  mapfile -t packages < <(missing_packages "$@")
  [ ${#packages[@]} -gt 0 ] || return 0
  "$root/third_party/fetch.sh" "$@" --plan
  say "missing packages: ${packages[*]}"
  command -v apt-get >/dev/null || die "there is no apt-get here; install what these packages hold, then run this again"
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "run as root: apt-get install --no-install-recommends ${packages[*]}"
    as_root=(sudo)
  fi
  as_root+=(env LC_ALL=C DEBIAN_FRONTEND=noninteractive)
  say "refreshing apt's package lists (about 10 MB)"
  "${as_root[@]}" apt-get -qq update || die "apt-get update failed"
  "${as_root[@]}" apt-get install --no-install-recommends --assume-no "${packages[@]}" 2>/dev/null |
    sed -nE '/^(Need to get|After this operation)/s/^/bootstrap: apt: /p' >&2 || true
  "${as_root[@]}" apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 install "${packages[@]}" >/dev/null ||
    die "apt-get install failed"
}

# ---- building -------------------------------------------------------------------------------------------------------
# A compiler at work on LibTorch's headers needs about 1.2 GB, so that memory limits the jobs as well as the cores do.
jobs() {
  local cores memory
  cores=$(nproc)
  memory=$(awk '/^MemAvailable:/ { n = int($2 / 1200000); print (n < 1) ? 1 : n }' /proc/meminfo)
  echo "${JOBS:-$((cores < memory ? cores : memory))}"
}

# build NAME CMAKE_OPTION... [-- TARGET...]: configures and builds build/NAME.
build() {
  local name=$1 options=() targets=() start=$SECONDS
  shift
  while [ $# -gt 0 ] && [ "$1" != -- ]; do options+=("$1"); shift; done
  if [ $# -gt 0 ]; then shift; targets=(--target "$@"); fi
  mkdir -p "$root/build/$name"
  # Warnings are errors with the compilers that are tested; a user of a newer one should not be stopped by a new warning.
  if [ "$(g++ -dumpversion | cut -d. -f1)" -gt 12 ]; then options+=(-DGEMMA_SFT_WERROR=OFF); fi
  cmake -S "$root" -B "$root/build/$name" -G Ninja -DCMAKE_BUILD_TYPE=Release "${options[@]}" \
    >"$root/build/$name/configure.log" || { cat "$root/build/$name/configure.log" >&2; die "configuring $name failed"; }
  cmake --build "$root/build/$name" --parallel "$(jobs)" "${targets[@]}" >&2 || die "building $name failed, see above"
  say "build/$name is up to date ($((SECONDS - start)) s)"
}
product=(gemma-sft gemma-sft-engine gemma-sft-jobs gemma-sft-traces)

run_demo() {
  install_packages
  build release -- "${product[@]}"
  exec "$root/configs/demo/run.sh" "$root/build/release/bin" "$@"
}

run_build() {  # [--cuda]
  if [ "${1:-}" = --cuda ]; then
    install_packages --cuda
    build cuda -DGEMMA_SFT_CUDA=ON -- "${product[@]}"
    say "run it: build/cuda/bin/gemma-sft"
  else
    install_packages
    build release -- "${product[@]}"
    say "run it: build/release/bin/gemma-sft"
  fi
}

run_install() {  # PREFIX [--cuda]
  local tree=release
  run_build "${2:-}"
  if [ "${2:-}" = --cuda ]; then tree=cuda; fi
  cmake --install "$root/build/$tree" --prefix "$1" >/dev/null || die "installing below $1 failed"
  say "installed: $1/bin/gemma-sft"
}

# Builds the release and, of the torch-free part, a twin with AddressSanitizer and UndefinedBehaviorSanitizer. Then one
# ctest run over both trees, so that there is one list of results and one closing line.
run_test() {
  wants_python=yes
  install_packages --nvcc
  { "$root/trainer/tunix/gateway/environment.sh" && "$root/trainer/tunix/gateway/environment.sh" --test; } >/dev/null ||
    say "the gateway's tests will say why they cannot run"
  build release -DGEMMA_SFT_NVCC=ON -- all cuda_sources cuda_kernels
  build asan -DGEMMA_SFT_TORCH=OFF -DGEMMA_SFT_BENCHMARKS=OFF -DGEMMA_SFT_SANITIZE=address,undefined
  mkdir -p "$root/build/test"
  printf 'subdirs("%s" "%s")\n' "$root/build/release" "$root/build/asan" >"$root/build/test/CTestTestfile.cmake"
  command -v nvidia-smi >/dev/null || say "no GPU here: tests/gpu/run.sh is not part of this run"
  say "names that begin with asan: the torch-free tests again, under the sanitizers; skipped tests are listed at the end"
  cd "$root/build/test"
  local result=0
  ctest --output-on-failure --no-tests=error --parallel "$(nproc)" || result=$?
  # What a program of many tests left out is in its own output alone, which a passed test does not show.
  grep -ahA 1 ': Skipped$' Testing/Temporary/LastTest.log | sed -n 's/^/bootstrap: skipped inside a test: /p' >&2 || true
  return "$result"
}

# What google-tunix itself does with a job: minutes, and a Python environment of a gigabyte, so not part of run_test.
run_test_tunix() {
  wants_python=yes
  install_packages
  "$root/trainer/tunix/gateway/runner/environment.sh" --test >/dev/null || die "the environment of google-tunix was not made"
  "$root/trainer/tunix/gateway/environment.sh" >/dev/null || die "the gateway's environment was not made"
  build release -- "${product[@]}"
  exec "$root/tests/trainer/tunix/runner/run.sh" "$root/build/release/bin"
}

run_test_long() {  # [--seed N]
  local seed=${2:-1}
  [[ $seed =~ ^[0-9]+$ ]] || die "--seed: expected a whole number, got \"$seed\""
  install_packages
  build release -- long_suites
  exec "$root/tests/long.sh" "$root/build/release" "$seed"
}

clean_cache() {
  [ -d "$cache" ] || { say "$cache does not exist"; return 0; }
  say "removing $(du -sh "$cache" | cut -f1) from $cache"
  rm -rf "$cache"/downloads "$cache"/libtorch-* "$cache"/sentencepiece-* "$cache"/clang-format-* "$cache"/nvcc-* "$cache"/work.* \
    "$cache"/lock "$cache"/venv-* "$cache"/jax-tests "$cache"/postgres-* "$cache"/python-* "$cache"/python.lock \
    "$cache"/side_by_side
  rmdir --ignore-fail-on-non-empty "$cache"
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
  -h | --help | help) usage ;;
  demo) run_demo "$@" ;;
  test) [ $# -eq 0 ] || { usage >&2; exit 64; }; run_test ;;
  test-tunix) [ $# -eq 0 ] || { usage >&2; exit 64; }; run_test_tunix ;;
  test-long)
    [ $# -eq 0 ] || { [ $# -eq 2 ] && [ "$1" = --seed ]; } || { usage >&2; exit 64; }
    run_test_long "$@"
    ;;
  build) [ $# -eq 0 ] || [ "$*" = --cuda ] || { usage >&2; exit 64; }; run_build "$@" ;;
  install)
    [ $# -eq 1 ] || { [ $# -eq 2 ] && [ "$2" = --cuda ]; } || { usage >&2; exit 64; }
    run_install "$@"
    ;;
  clean-cache) [ $# -eq 0 ] || { usage >&2; exit 64; }; clean_cache ;;
  *) usage >&2; exit 64 ;;
esac
