# What nearly every file includes, compiled once a library: a light file then builds in less than
# half the time. Files still include what they use; the `fuzz` preset builds without this.
option(LORA_PRECOMPILE "Precompile the headers that most files include" ON)

set(LORA_COMMON_HEADERS
  <algorithm> <array> <charconv> <cmath> <cstdint> <cstring> <filesystem> <functional> <limits>
  <map> <memory> <numeric> <optional> <set> <span> <sstream> <string> <string_view>
  <unordered_map> <variant> <vector>)

# ccache takes a file with precompiled headers only where it is told that their time stamps do not
# matter.
if(LORA_CCACHE AND LORA_PRECOMPILE AND CMAKE_CXX_COMPILER_LAUNCHER STREQUAL LORA_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CMAKE_COMMAND}" -E env
    CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime "${LORA_CCACHE}")
endif()

function(lora_precompile target)
  if(LORA_PRECOMPILE)
    target_precompile_headers(${target} PRIVATE ${LORA_COMMON_HEADERS} ${ARGN})
    # Asked for by ccache.
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      target_compile_options(${target} PRIVATE -fpch-preprocess)
    endif()
  endif()
endfunction()
