vneva_test(spec_read LABEL unit SOURCES unit/spec_read.c LIBS vneva_spec cmocka)
vneva_test(spec_schema LABEL unit SOURCES unit/spec_schema.c LIBS vneva_spec cmocka)
vneva_test(spec_estimate LABEL integration
  SOURCES integration/spec_estimate.c integration/spec_model.c
  LIBS vneva_spec vneva_neva cmocka)
vneva_test(spec_fit LABEL integration
  SOURCES integration/spec_fit.c integration/spec_model.c
  LIBS vneva_spec vneva_neva cmocka)
vneva_test(spec_memory LABEL integration
  SOURCES integration/spec_memory.c integration/spec_model.c
  LIBS vneva_spec vneva_tiny vneva_optim cmocka ARGS cpu)
cuda_host_test(spec_memory_cuda LABEL integration
  SOURCES integration/spec_memory.c integration/spec_model.c
  LIBS vneva_spec vneva_tiny vneva_optim cmocka ARGS cuda)
if(TARGET spec_memory_cuda) # what graphs take is not predicted: docs/memory.md
  set_property(TEST spec_memory_cuda APPEND PROPERTY ENVIRONMENT VNEVA_CUDA_GRAPHS=off)
endif()
vneva_test(client_commands LABEL unit
  SOURCES unit/client_commands.c unit/client_help.c unit/fake_coordinator.c
  LIBS vneva_client cmocka Threads::Threads)
vneva_test(client_submit LABEL unit
  SOURCES unit/client_submit.c unit/client_help.c unit/fake_coordinator.c
  LIBS vneva_client cmocka Threads::Threads)
vneva_test(client_query LABEL unit SOURCES unit/client_query.c unit/client_help.c unit/fake_coordinator.c
  LIBS vneva_client cmocka Threads::Threads)
vneva_test(client_top LABEL unit SOURCES unit/client_top.c LIBS vneva_client cmocka)
vneva_test(top_terminal LABEL integration
  SOURCES integration/top_terminal.c unit/fake_coordinator.c
  LIBS vneva_client coordinator_cluster cmocka Threads::Threads util)
add_dependencies(top_terminal vneva vneva-coordinator)
vneva_test(client_why LABEL unit SOURCES unit/client_why.c LIBS vneva_client cmocka)
vneva_test(client_report LABEL unit SOURCES unit/client_report.c unit/fake_coordinator.c
  LIBS vneva_client cmocka Threads::Threads)
vneva_test(client_weights LABEL unit SOURCES unit/client_weights.c LIBS vneva_client cmocka)
add_test(NAME user_scripts COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/integration/scripts.sh)
set_tests_properties(user_scripts PROPERTIES LABELS integration TIMEOUT 60
  ENVIRONMENT "VNEVA_SOURCE=${CMAKE_SOURCE_DIR}")
add_test(NAME up_cli COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/integration/up_cli.sh)
set_tests_properties(up_cli PROPERTIES LABELS integration TIMEOUT 120
  ENVIRONMENT "VNEVA_BIN=$<TARGET_FILE_DIR:vneva>")
add_test(NAME command_lines
  COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/integration/command_lines.sh)
set_tests_properties(command_lines PROPERTIES LABELS integration TIMEOUT 60
  ENVIRONMENT "VNEVA_SOURCE=${CMAKE_SOURCE_DIR};VNEVA_BIN=$<TARGET_FILE_DIR:vneva>")
