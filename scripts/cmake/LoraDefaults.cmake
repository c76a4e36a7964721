# Language level, build type, warnings, ccache, and the layout of the build tree.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

# bin/ and lib/ mirror an installation, so the engine is found the same way in both.
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib")

find_program(LORA_CCACHE ccache)
if(LORA_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${LORA_CCACHE}")
endif()

option(LORA_WERROR "Treat warnings as errors" OFF)
option(LORA_FUZZ "Build the fuzz targets for libFuzzer (Clang) instead of the tests" OFF)
set(LORA_SANITIZE "" CACHE STRING "Sanitizers, as given to -fsanitize=")

add_library(lora_options INTERFACE)
target_compile_options(lora_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor)
# GCC 12 warns of overlapping and of impossible sizes inside std::string's own operator+ (GCC bugs
# 105651 and 105329).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(lora_options INTERFACE -Wno-restrict -Wno-stringop-overflow
    -Wno-stringop-overread -Wno-array-bounds)
endif()
# The instrumentation of sanitizers makes GCC 12 doubt sound code; other builds judge warnings.
if(LORA_WERROR AND NOT LORA_SANITIZE)
  target_compile_options(lora_options INTERFACE -Werror)
endif()
if(LORA_SANITIZE)
  add_compile_options(-fsanitize=${LORA_SANITIZE} -fno-sanitize-recover=all
    -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=${LORA_SANITIZE})
endif()
if(LORA_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "LORA_FUZZ needs Clang, whose runtime brings libFuzzer "
      "(cmake --preset fuzz; found ${CMAKE_CXX_COMPILER_ID})")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
