# model/weights: other people's folders
add_library(vneva_weights_help STATIC unit/weights_help.c)
target_link_libraries(vneva_weights_help PUBLIC vneva_tiny vneva_weights PRIVATE vneva_flags)
target_compile_options(vneva_weights_help PRIVATE
  $<$<C_COMPILER_ID:GNU>:-Wno-format-truncation>)
vneva_test(unit_weights_folders LABEL unit SOURCES unit/weights_folders.c
  LIBS vneva_weights_help)
vneva_test(unit_weights_config LABEL unit SOURCES unit/weights_config.c
  LIBS vneva_weights_help)
vneva_test(unit_weights_damage LABEL unit SOURCES unit/weights_damage.c
  LIBS vneva_weights_help)
vneva_test(unit_weights_torch LABEL unit SOURCES unit/weights_torch.c
  LIBS vneva_weights_help)
vneva_test(unit_weights_checkpoint LABEL unit SOURCES unit/weights_checkpoint.c
  LIBS vneva_weights_help vneva_checkpoint)

# Measured by hand and by tests/bench, not by ctest.
add_executable(bench_import bench/bench_import.c)
target_link_libraries(bench_import PRIVATE vneva_checkpoint vneva_flags)
set_target_properties(bench_import PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
