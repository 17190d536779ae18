# model/comm, nn, neva, optim, checkpoint, generate
add_library(vneva_tiny STATIC op/tiny.c op/expect.c)
target_link_libraries(vneva_tiny PUBLIC vneva_neva PRIVATE vneva_flags)
vneva_test(op_model_gradients LABEL op SOURCES op/model_gradients.c LIBS vneva_tiny)
vneva_test(op_model_layouts LABEL op SOURCES op/model_layouts.c LIBS vneva_tiny)
vneva_test(op_model_mixed LABEL op SOURCES op/model_mixed.c LIBS vneva_tiny vneva_optim)
vneva_test(op_model_flops LABEL op SOURCES op/model_flops.c LIBS vneva_tiny)
vneva_test(op_model_generate LABEL op SOURCES op/model_generate.c op/answers.c
  LIBS vneva_tiny vneva_generate)
vneva_test(op_model_drawn LABEL op SOURCES op/model_drawn.c op/answers.c
  LIBS vneva_tiny vneva_generate m)
add_library(vneva_golden STATIC op/golden.c)
target_link_libraries(vneva_golden PUBLIC vneva_tiny vneva_generate vneva_checkpoint
  PRIVATE vneva_flags)
vneva_test(op_model_decoders LABEL op SOURCES op/model_decoders.c LIBS vneva_golden)
vneva_test(op_model_llava LABEL op SOURCES op/model_llava.c LIBS vneva_golden)
vneva_test(op_model_train LABEL op SOURCES op/model_train.c
  LIBS vneva_tiny vneva_optim vneva_checkpoint)
vneva_test(op_model_scaled LABEL op SOURCES op/model_scaled.c LIBS vneva_tiny vneva_optim)
vneva_test(unit_optim_loss_scale LABEL unit SOURCES unit/optim_loss_scale.c op/expect.c
  LIBS vneva_optim)
vneva_test(unit_comm_collectives LABEL unit SOURCES unit/comm_collectives.c op/expect.c
  LIBS vneva_comm)
vneva_test(unit_checkpoint_files LABEL unit SOURCES unit/checkpoint_files.c
  LIBS vneva_tiny vneva_checkpoint)

# Measured by hand and by tests/bench, not by ctest.
foreach(bench bench_step bench_model)
  add_executable(${bench} bench/${bench}.c bench/bench_batch.c)
  target_link_libraries(${bench} PRIVATE vneva_optim vneva_generate vneva_flags)
  set_target_properties(${bench} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
endforeach()
