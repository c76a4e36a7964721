# LibTorch >= 2.13: LORA_TORCH_DIR is the folder that holds include/ and lib/ (the `torch` folder of
# a wheel, or an unpacked LibTorch). The libraries are linked directly: find_package(Torch) would ask
# for a CUDA toolkit as soon as the wheel is a CUDA one.
set(LORA_TORCH_DIR "" CACHE PATH "Folder with LibTorch's include/ and lib/")
if(NOT LORA_TORCH_DIR)
  if(DEFINED ENV{LORA_TORCH_DIR})
    set(LORA_TORCH_DIR "$ENV{LORA_TORCH_DIR}" CACHE PATH "" FORCE)
  else()
    file(GLOB found "${CMAKE_SOURCE_DIR}/.deps/venv/lib/python3*/site-packages/torch")
    if(found)
      list(GET found 0 first)
      set(LORA_TORCH_DIR "${first}" CACHE PATH "" FORCE)
    endif()
  endif()
endif()
if(NOT EXISTS "${LORA_TORCH_DIR}/include/ATen/ATen.h")
  message(FATAL_ERROR "LibTorch was not found (LORA_TORCH_DIR='${LORA_TORCH_DIR}'). Run scripts/setup, "
    "or pass -DLORA_TORCH_DIR=<folder with include/ and lib/>, or -DLORA_BUILD_ENGINE=OFF.")
endif()

file(STRINGS "${LORA_TORCH_DIR}/include/torch/headeronly/version.h" version_lines
  REGEX "#define TORCH_VERSION_(MAJOR|MINOR) ")
string(REGEX REPLACE ".*TORCH_VERSION_MAJOR ([0-9]+).*" "\\1" torch_major "${version_lines}")
string(REGEX REPLACE ".*TORCH_VERSION_MINOR ([0-9]+).*" "\\1" torch_minor "${version_lines}")
if(torch_major LESS 2 OR (torch_major EQUAL 2 AND torch_minor LESS 13))
  message(FATAL_ERROR "LibTorch in ${LORA_TORCH_DIR} is ${torch_major}.${torch_minor}, expected 2.13 or newer")
endif()
message(STATUS "LibTorch ${torch_major}.${torch_minor} in ${LORA_TORCH_DIR}")

add_library(lora_torch INTERFACE)
target_include_directories(lora_torch SYSTEM INTERFACE
  "${LORA_TORCH_DIR}/include" "${LORA_TORCH_DIR}/include/torch/csrc/api/include")
target_link_libraries(lora_torch INTERFACE
  "${LORA_TORCH_DIR}/lib/libtorch.so" "${LORA_TORCH_DIR}/lib/libtorch_cpu.so" "${LORA_TORCH_DIR}/lib/libc10.so")

# at::parallel_for is a loop on one thread in code that is compiled without OpenMP. The runtime must
# be LibTorch's own: two of them would each keep a pool of threads.
target_compile_options(lora_torch INTERFACE -fopenmp)
file(GLOB torch_openmp "${LORA_TORCH_DIR}/lib/libgomp*.so*")
if(torch_openmp)
  target_link_libraries(lora_torch INTERFACE ${torch_openmp})
else()
  target_link_options(lora_torch INTERFACE -fopenmp)
endif()
