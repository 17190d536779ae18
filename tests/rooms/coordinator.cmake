# common/wire, common/net and the coordinator
pkg_check_modules(MSGPACK REQUIRED IMPORTED_TARGET msgpack)

vneva_test(wire_codec LABEL unit SOURCES unit/wire_codec.c
  LIBS vneva_wire PkgConfig::MSGPACK cmocka)
vneva_test(net_sockets LABEL unit SOURCES unit/net_sockets.c
  LIBS vneva_net vneva_wire cmocka Threads::Threads)
vneva_test(net_mesh LABEL unit SOURCES unit/net_mesh.c
  LIBS vneva_net vneva_wire cmocka Threads::Threads)
vneva_test(coordinator_states LABEL unit SOURCES unit/coordinator_states.c
  LIBS vneva_coordinator_core cmocka)
# found again here: imported targets belong to the folder that finds them
pkg_check_modules(ZMQ REQUIRED IMPORTED_TARGET libzmq)
pkg_check_modules(SQLITE REQUIRED IMPORTED_TARGET sqlite3)
vneva_test(coordinator_store LABEL unit SOURCES unit/coordinator_store.c
  LIBS vneva_store cmocka)
vneva_test(coordinator_query LABEL unit SOURCES unit/coordinator_query.c
  LIBS vneva_store cmocka)

# the coordinator itself, with scripted agents
add_library(coordinator_cluster STATIC integration/cluster.c integration/jobs_cluster.c)
target_link_libraries(coordinator_cluster PUBLIC vneva_net vneva_wire vneva_base cmocka
  PRIVATE vneva_flags)
vneva_test(coordinator_jobs LABEL integration SOURCES integration/coordinator_jobs.c
  LIBS coordinator_cluster PkgConfig::ZMQ)
add_dependencies(coordinator_jobs vneva-coordinator)
vneva_test(coordinator_losses LABEL integration SOURCES integration/coordinator_losses.c
  LIBS coordinator_cluster)
add_dependencies(coordinator_losses vneva-coordinator)
vneva_test(coordinator_questions LABEL integration
  SOURCES integration/coordinator_questions.c
  LIBS coordinator_cluster PkgConfig::SQLITE)
add_dependencies(coordinator_questions vneva-coordinator vneva)
vneva_test(coordinator_kills LABEL fault SOURCES fault/coordinator_kills.c
  LIBS coordinator_cluster PkgConfig::SQLITE)
add_dependencies(coordinator_kills vneva-coordinator)

# not tests: they print a table (tests/bench)
add_executable(bench_mesh bench/bench_mesh.c)
set_target_properties(bench_mesh PROPERTIES
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(bench_mesh PRIVATE vneva_net Threads::Threads vneva_flags)
add_executable(bench_dispatch bench/bench_dispatch.c)
set_target_properties(bench_dispatch PROPERTIES
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(bench_dispatch PRIVATE coordinator_cluster vneva_flags)
add_dependencies(bench_dispatch vneva-coordinator)
# not a test: the same with a crowd of agents, over TCP with keys
add_executable(bench_scale bench/bench_scale.c)
set_target_properties(bench_scale PROPERTIES
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(bench_scale PRIVATE vneva_net vneva_wire vneva_base PkgConfig::ZMQ
  vneva_flags)
add_dependencies(bench_scale vneva-coordinator vneva)
