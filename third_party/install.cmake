# What `cmake --install` makes: PREFIX/bin with the programs, and next to it what they need.
foreach(program gemma-sft gemma-sft-engine gemma-sft-jobs gemma-sft-traces)
  if(TARGET ${program})
    install(TARGETS ${program} RUNTIME DESTINATION bin)
  endif()
endforeach()
install(DIRECTORY "${CMAKE_SOURCE_DIR}/configs/" DESTINATION share/gemma-sft/configs
  FILES_MATCHING PATTERN "*.yaml" PATTERN "*.json" PATTERN "*.jsonl" PATTERN "*.txt" PATTERN CMakeLists.txt EXCLUDE)

# The cases of `gemma-sft selftest`. The program finds them in ../share/gemma-sft/selftest, in a build tree by a link.
install(DIRECTORY "${CMAKE_SOURCE_DIR}/tests/golden/" DESTINATION share/gemma-sft/selftest
  FILES_MATCHING REGEX "/(case\\.json|expected\\.safetensors|model/[^/]+)$")
file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/share/gemma-sft")
file(CREATE_LINK "${CMAKE_SOURCE_DIR}/tests/golden" "${CMAKE_BINARY_DIR}/share/gemma-sft/selftest" SYMBOLIC)

# An installed tree stands alone: it takes the LibTorch libraries along, in the layout that their own run paths expect.
if(GEMMA_SFT_TORCH)
  file(GLOB torch_libraries "${libtorch_dir}/lib/*.so*")
  install(PROGRAMS ${torch_libraries} DESTINATION lib/gemma-sft/torch/lib)
  file(GLOB cuda_folders "${libtorch_dir}/../nvidia/*/lib")
  foreach(folder IN LISTS cuda_folders)
    file(RELATIVE_PATH place "${libtorch_dir}/.." "${folder}")
    install(DIRECTORY "${folder}/" DESTINATION "lib/gemma-sft/${place}" FILES_MATCHING PATTERN "*.so*")
  endforeach()
endif()
