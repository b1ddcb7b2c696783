# What `cmake --install` makes: PREFIX/bin with the two programs, and next to it what they need.
foreach(program gemma-sft gemma-sft-engine)
  if(TARGET ${program})
    install(TARGETS ${program} RUNTIME DESTINATION bin)
  endif()
endforeach()
install(DIRECTORY "${CMAKE_SOURCE_DIR}/configs/" DESTINATION share/gemma-sft/configs
  FILES_MATCHING PATTERN "*.yaml" PATTERN "*.json" PATTERN "*.jsonl" PATTERN "*.txt" PATTERN CMakeLists.txt EXCLUDE)

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
