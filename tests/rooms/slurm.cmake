# slurm/node, under a real Slurm and Open MPI's mpirun: the scripts say what they need
add_executable(free_ports slurm/free_ports.c)
target_link_libraries(free_ports PRIVATE vneva_flags)
set_target_properties(free_ports PROPERTIES
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
if(PMIX_FOUND)
  add_executable(exchange_peers slurm/exchange_peers.c)
  target_include_directories(exchange_peers SYSTEM PRIVATE ${PMIX_INCLUDE_DIRS})
  target_link_libraries(exchange_peers PRIVATE vneva_exchange vneva_flags ${CMAKE_DL_LIBS})
  set_target_properties(exchange_peers PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
endif()

# vneva_slurm_test(NAME TIMEOUT): tests/slurm/NAME.sh. One at a time: each has a cluster of
# its own that takes the machine for two nodes. They mostly wait (for Slurm's own clocks), so
# they begin first and others run beside them.
function(vneva_slurm_test name timeout)
  add_test(NAME slurm_${name} COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/slurm/${name}.sh)
  set_tests_properties(slurm_${name} PROPERTIES LABELS integration TIMEOUT ${timeout}
    RESOURCE_LOCK slurm COST 1000 ENVIRONMENT "VNEVA_SOURCE=${CMAKE_SOURCE_DIR};\
VNEVA_BIN=${CMAKE_BINARY_DIR}/bin;VNEVA_TESTS=${CMAKE_BINARY_DIR}/tests")
endfunction()
vneva_slurm_test(exchange 120)
vneva_slurm_test(node 600)
vneva_test(node_devices LABEL unit SOURCES unit/node_devices.c LIBS vneva_node cmocka)
vneva_test(node_scratch LABEL unit SOURCES unit/node_scratch.c op/expect.c LIBS vneva_node)
vneva_slurm_test(preflight 300)
vneva_slurm_test(pools 400)
