# From `libtorch_dir` makes LibTorch::cpu and, in a CUDA build, LibTorch::cuda. LibTorch's own package file is not used: with
# a wheel built for CUDA it wants a whole CUDA toolkit, a GPU compiler and Python even for a CPU program.
set(required_torch 2.11.0)
set(version_header "${libtorch_dir}/include/torch/headeronly/version.h")
if(NOT EXISTS "${version_header}")
  message(FATAL_ERROR "LibTorch: ${version_header} does not exist. "
    "LIBTORCH_DIR must be the folder of LibTorch ${required_torch} that has lib/ and include/ in it.")
endif()
file(STRINGS "${version_header}" version_line REGEX "\"[0-9]+\\.[0-9]+\\.[0-9]+")
string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" found_torch "${version_line}")
if(NOT found_torch VERSION_EQUAL required_torch)
  message(FATAL_ERROR "LibTorch: ${libtorch_dir} is version ${found_torch}, this project needs ${required_torch}. "
    "Another version is another library: numbers, headers and fused kernels differ.")
endif()
foreach(name c10 torch_cpu)
  if(NOT EXISTS "${libtorch_dir}/lib/lib${name}.so")
    message(FATAL_ERROR "LibTorch: ${libtorch_dir}/lib/lib${name}.so does not exist")
  endif()
  add_library(LibTorch::${name} SHARED IMPORTED)
  set_target_properties(LibTorch::${name} PROPERTIES
    IMPORTED_LOCATION "${libtorch_dir}/lib/lib${name}.so" IMPORTED_SONAME lib${name}.so)
endforeach()

# LibTorch carries another fmt among its headers. Ours must be found first, or a source file that sees both would call
# functions that the linked fmt does not have.
get_target_property(fmt_include fmt::fmt INTERFACE_INCLUDE_DIRECTORIES)
list(GET fmt_include 0 fmt_include)
file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/third_party/include-first")
file(CREATE_LINK "${fmt_include}/fmt" "${CMAKE_BINARY_DIR}/third_party/include-first/fmt" SYMBOLIC)

add_library(LibTorch::cpu INTERFACE IMPORTED)
target_include_directories(LibTorch::cpu SYSTEM INTERFACE "${CMAKE_BINARY_DIR}/third_party/include-first"
  "${libtorch_dir}/include" "${libtorch_dir}/include/torch/csrc/api/include")
target_link_libraries(LibTorch::cpu INTERFACE LibTorch::torch_cpu LibTorch::c10 fmt::fmt Threads::Threads)
# The libraries that LibTorch itself needs are found through its own run path, at run time; the linker needs no look at them.
target_link_options(LibTorch::cpu INTERFACE "LINKER:--allow-shlib-undefined")

# The headers of the CUDA run-time library are in the CPU set too: they let a CPU build compile what a CUDA build would link.
get_filename_component(cuda_dir "${libtorch_dir}/../nvidia/cu13" ABSOLUTE)
if(EXISTS "${cuda_dir}/include/crt/host_defines.h")
  add_library(LibTorch::cuda_headers INTERFACE IMPORTED)
  target_include_directories(LibTorch::cuda_headers SYSTEM INTERFACE "${cuda_dir}/include")
  target_link_libraries(LibTorch::cuda_headers INTERFACE LibTorch::cpu)
endif()

if(GEMMA_SFT_CUDA)
  if(EXISTS "${cuda_dir}/bin/nvcc" AND NOT CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_COMPILER "${cuda_dir}/bin/nvcc")
  endif()
  # One fat binary: A100, RTX 30, RTX 40 and L4, H100 and H200, B200, RTX 50. Newer chips compile the last one's PTX.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90-real 100-real 120)
  endif()
  if(CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
    set(CMAKE_CUDA_COMPILER_LAUNCHER "${CMAKE_CXX_COMPILER_LAUNCHER}")
  endif()
  set(CMAKE_CUDA_RUNTIME_LIBRARY None)
  enable_language(CUDA)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 knows no C++20 of nvcc
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  endif()
  foreach(name c10_cuda torch_cuda)
    if(NOT EXISTS "${libtorch_dir}/lib/lib${name}.so")
      message(FATAL_ERROR "LibTorch: ${libtorch_dir}/lib/lib${name}.so does not exist; this LibTorch is for the CPU only")
    endif()
    add_library(LibTorch::${name} SHARED IMPORTED)
    set_target_properties(LibTorch::${name} PROPERTIES
      IMPORTED_LOCATION "${libtorch_dir}/lib/lib${name}.so" IMPORTED_SONAME lib${name}.so)
  endforeach()
  add_library(LibTorch::cuda INTERFACE IMPORTED)
  target_include_directories(LibTorch::cuda SYSTEM INTERFACE "${cuda_dir}/include")
  target_link_libraries(LibTorch::cuda INTERFACE LibTorch::cpu LibTorch::c10_cuda "${cuda_dir}/lib/libcudart.so.13")
  # Nothing in our sources names a symbol of libtorch_cuda; without this the linker drops it and no GPU is ever found.
  target_link_options(LibTorch::cuda INTERFACE
    "LINKER:--push-state,--no-as-needed,${libtorch_dir}/lib/libtorch_cuda.so,--pop-state")
endif()
