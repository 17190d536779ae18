# vneva-model, and vneva-generate with it
add_executable(model_resave support/resave.c)
target_link_libraries(model_resave PRIVATE vneva_tiny vneva_checkpoint vneva_flags)
set_target_properties(model_resave PROPERTIES
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
vneva_test(generate_stream LABEL unit SOURCES unit/generate_stream.c
  LIBS vneva_generate_talk cmocka)
foreach(test model_cli generate_cli)
  add_test(NAME ${test} COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/integration/${test}.sh)
  set_tests_properties(${test} PROPERTIES LABELS integration TIMEOUT 120
    ENVIRONMENT "VNEVA_SOURCE=${CMAKE_SOURCE_DIR};VNEVA_BIN=${CMAKE_BINARY_DIR}/bin;VNEVA_RESAVE=$<TARGET_FILE:model_resave>")
endforeach()
