# Every dependency, each behind one target. Included, not add_subdirectory'd, so that the targets are known everywhere and
# the CUDA language can be enabled for the whole project. What each one is and why it is here: README.md beside this file.

# What Debian and Ubuntu package (bootstrap.sh installs the -dev packages).
find_package(Threads REQUIRED)
find_package(yaml-cpp 0.6 REQUIRED)
if(NOT TARGET yaml-cpp)  # from 0.8 on it has a namespace
  add_library(yaml-cpp ALIAS yaml-cpp::yaml-cpp)
endif()
find_package(nlohmann_json 3.9 REQUIRED)
find_package(CLI11 2.1 REQUIRED)
find_package(fmt 8 REQUIRED)
find_package(spdlog 1.9 REQUIRED)
find_package(CURL 7.81 REQUIRED)
find_package(PostgreSQL 13 REQUIRED)  # its client library, libpq
find_package(OpenSSL 3.0 REQUIRED COMPONENTS Crypto)
if(GEMMA_SFT_TESTS)
  find_package(GTest REQUIRED)
endif()
if(GEMMA_SFT_BENCHMARKS)
  find_package(benchmark REQUIRED)
endif()

# What they do not: fetch.sh brings it into the cache when it is not there yet and says where it is.
set(LIBTORCH_DIR "" CACHE PATH "An own LibTorch 2.11.0: a folder with lib/ and include/; empty: the pinned wheel")
set(SENTENCEPIECE_DIR "" CACHE PATH "An own static sentencepiece in fetch.sh's layout; empty: the pinned source")
set(fetch_options)
if(NOT GEMMA_SFT_TORCH OR LIBTORCH_DIR)
  list(APPEND fetch_options --no-torch)
elseif(GEMMA_SFT_CUDA)
  list(APPEND fetch_options "--${GEMMA_SFT_CUDA_SET}")
endif()
if(NOT GEMMA_SFT_TESTS)
  list(APPEND fetch_options --no-tools)
endif()
if(GEMMA_SFT_NVCC)
  list(APPEND fetch_options --nvcc)
endif()
set(libtorch_dir "${LIBTORCH_DIR}")
set(sentencepiece_dir "${SENTENCEPIECE_DIR}")
if(NOT sentencepiece_dir OR (GEMMA_SFT_TORCH AND NOT libtorch_dir))
  execute_process(
    COMMAND "${CMAKE_COMMAND}" -E env "CXX=${CMAKE_CXX_COMPILER}"
            "${CMAKE_CURRENT_LIST_DIR}/fetch.sh" ${fetch_options}
    OUTPUT_VARIABLE fetched RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "third_party/fetch.sh failed (${result}), see above. "
      "Offline, give -DLIBTORCH_DIR= and -DSENTENCEPIECE_DIR=, or a filled cache in GEMMA_SFT_CACHE.")
  endif()
  if(NOT libtorch_dir AND fetched MATCHES "LIBTORCH_DIR=([^\n]+)")
    set(libtorch_dir "${CMAKE_MATCH_1}")
  endif()
  if(NOT sentencepiece_dir AND fetched MATCHES "SENTENCEPIECE_DIR=([^\n]+)")
    set(sentencepiece_dir "${CMAKE_MATCH_1}")
  endif()
  if(NOT POSTGRES_DIR AND fetched MATCHES "POSTGRES_DIR=([^\n]+)")
    set(POSTGRES_DIR "${CMAKE_MATCH_1}")
  endif()
  if(fetched MATCHES "CUDA_DIR=([^\n]+)")
    set(nvcc_dir "${CMAKE_MATCH_1}")
  endif()
  if(NOT CLANG_FORMAT AND fetched MATCHES "CLANG_FORMAT=([^\n]+)")
    set(CLANG_FORMAT "${CMAKE_MATCH_1}")
  endif()
endif()
foreach(file fetch.sh requirements-cpu.txt requirements-source.txt requirements-cuda.txt requirements-cuda-build.txt
        requirements-tools.txt)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/${file}")
endforeach()

include("${CMAKE_CURRENT_LIST_DIR}/FindSentencePiece.cmake")
if(GEMMA_SFT_TORCH)
  include("${CMAKE_CURRENT_LIST_DIR}/FindLibTorch.cmake")
endif()
