# From `sentencepiece_dir` (fetch.sh's layout) makes
#   sentencepiece::sentencepiece  the processor and the trainer, static
#   sentencepiece::model_proto    as above, and the classes of its model file (sentencepiece_model.pb.h). They bring their own
#                                 google/protobuf headers: never in one source file with LibTorch's.
# All its symbols are hidden: LibTorch has another protobuf inside, and one process must not mix the two.
foreach(file lib/libsentencepiece.a lib/libsentencepiece_train.a include/sentencepiece_processor.h)
  if(NOT EXISTS "${sentencepiece_dir}/${file}")
    message(FATAL_ERROR "sentencepiece: ${sentencepiece_dir}/${file} does not exist; "
      "SENTENCEPIECE_DIR must be a folder made by third_party/fetch.sh")
  endif()
endforeach()

add_library(sentencepiece::sentencepiece INTERFACE IMPORTED)
target_include_directories(sentencepiece::sentencepiece SYSTEM INTERFACE "${sentencepiece_dir}/include")
target_link_libraries(sentencepiece::sentencepiece INTERFACE
  "${sentencepiece_dir}/lib/libsentencepiece_train.a" "${sentencepiece_dir}/lib/libsentencepiece.a" Threads::Threads)
target_link_options(sentencepiece::sentencepiece INTERFACE
  "LINKER:--exclude-libs,libsentencepiece.a:libsentencepiece_train.a")

add_library(sentencepiece::model_proto INTERFACE IMPORTED)
target_include_directories(sentencepiece::model_proto SYSTEM INTERFACE "${sentencepiece_dir}/include-model-proto")
target_link_libraries(sentencepiece::model_proto INTERFACE sentencepiece::sentencepiece)
target_compile_definitions(sentencepiece::model_proto INTERFACE HAVE_PTHREAD=1)
