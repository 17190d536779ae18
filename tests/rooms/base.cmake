vneva_test(base_json LABEL unit SOURCES unit/base_json.c LIBS vneva_base cmocka)
vneva_test(base_stage LABEL unit SOURCES unit/base_stage.c LIBS vneva_base cmocka)
vneva_test(base_spawn LABEL unit SOURCES unit/base_spawn.c LIBS vneva_base cmocka)
vneva_test(base_misc LABEL unit SOURCES unit/base_misc.c LIBS vneva_base cmocka)

add_test(NAME lint_includes COMMAND sh ${CMAKE_SOURCE_DIR}/tests/lint_includes.sh)
add_test(NAME lint_includes_sees_a_crossing
  COMMAND sh ${CMAKE_SOURCE_DIR}/tests/lint_includes_selftest.sh)
add_test(NAME lint_format COMMAND sh ${CMAKE_SOURCE_DIR}/tests/lint_format.sh)
add_test(NAME lint_tidy COMMAND sh ${CMAKE_SOURCE_DIR}/tests/lint_tidy.sh ${CMAKE_BINARY_DIR})
set_tests_properties(lint_includes lint_includes_sees_a_crossing lint_format lint_tidy
  PROPERTIES LABELS lint TIMEOUT 900)
# the longest of all that compute: it begins before those
set_tests_properties(lint_tidy PROPERTIES COST 950)
