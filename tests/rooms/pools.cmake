# pools of the coordinator, with a folder as the cluster and processes as its nodes
vneva_test(pool_plan LABEL unit SOURCES unit/pool_plan.c
  LIBS vneva_coordinator_core cmocka)
vneva_test(pool_launcher LABEL unit SOURCES unit/pool_launcher.c
  LIBS vneva_coordinator_core cmocka)
# an agent starts the vneva-rank that lies beside it: worker.cmake's fake_rank
vneva_program(pools_worker SOURCES ${CMAKE_SOURCE_DIR}/worker/agent/main.c
  LIBS vneva_agent)
set_target_properties(pools_worker PROPERTIES OUTPUT_NAME vneva-worker
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/pools)
vneva_test(pools_nodes LABEL integration SOURCES integration/pools_nodes.c
  LIBS coordinator_cluster PkgConfig::SQLITE TIMEOUT 300)
add_dependencies(pools_nodes vneva vneva-coordinator fake_rank pools_worker)
vneva_test(client_pool LABEL unit SOURCES unit/client_pool.c unit/client_help.c unit/fake_coordinator.c
  LIBS vneva_client cmocka Threads::Threads)
set_tests_properties(pools_nodes PROPERTIES COST 700) # mostly waits: begin early
