# The tests of kernels once more with those of a lesser processor, whatever this one would choose.

file(GLOB kernel_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/lib/engine/kernels/*.cpp"
  "${PROJECT_SOURCE_DIR}/lib/engine/llama/attention*.cpp")
foreach(file workspace gemm low_rank)
  list(APPEND kernel_sources "${PROJECT_SOURCE_DIR}/lib/engine/${file}.cpp")
endforeach()

function(lora_kernel_tests level attribute)
  add_executable(test_kernels_${level} ${kernel_sources}
    engine/kernels_test.cpp engine/low_rank_test.cpp engine/attention_test.cpp)
  target_include_directories(test_kernels_${level} PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}"
    "${PROJECT_SOURCE_DIR}/lib" "${PROJECT_SOURCE_DIR}/lib/include")
  target_compile_definitions(test_kernels_${level} PRIVATE "LORA_KERNEL=${attribute}")
  target_link_libraries(test_kernels_${level} PRIVATE lora_test_main lora_options lora_torch)
  # Code of one level only: its speed is not what is tested.
  target_compile_options(test_kernels_${level} PRIVATE -O1)
  add_test(NAME kernels_${level} COMMAND test_kernels_${level})
  set_tests_properties(kernels_${level} PROPERTIES LABELS engine)
endfunction()

lora_kernel_tests(plain "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU"
   AND NOT LORA_SANITIZE)
  lora_kernel_tests(avx2 "__attribute__((target(\"arch=x86-64-v3\")))")
endif()
