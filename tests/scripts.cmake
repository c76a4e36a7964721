# Tests that are scripts: each closes with a line `N passed, N failed`, which scripts/test adds up.
function(lora_script_test name)
  cmake_parse_arguments(ARG "" "LABEL" "COMMAND" ${ARGN})
  add_test(NAME ${name} COMMAND ${ARG_COMMAND} WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
  set_tests_properties(${name} PROPERTIES LABELS ${ARG_LABEL})
endfunction()

lora_script_test(checks LABEL checks
  COMMAND "${PROJECT_SOURCE_DIR}/scripts/check" --no-tidy --build "${CMAKE_BINARY_DIR}")
lora_script_test(corrupt_inputs LABEL slow
  COMMAND "${CMAKE_CURRENT_SOURCE_DIR}/corrupt/run" "${CMAKE_BINARY_DIR}")
lora_script_test(install LABEL install
  COMMAND "${CMAKE_CURRENT_SOURCE_DIR}/install/run" "${CMAKE_BINARY_DIR}")
lora_script_test(ci LABEL docs
  COMMAND "${CMAKE_CURRENT_SOURCE_DIR}/docs/run_ci" "${CMAKE_BINARY_DIR}")
if(LORA_BUILD_ENGINE)
  lora_script_test(resume LABEL slow
    COMMAND "${CMAKE_CURRENT_SOURCE_DIR}/resume/run" "${CMAKE_BINARY_DIR}")
  lora_script_test(guide LABEL docs
    COMMAND "${CMAKE_CURRENT_SOURCE_DIR}/docs/run_guide" "${CMAKE_BINARY_DIR}" docs/guide.md)
endif()
