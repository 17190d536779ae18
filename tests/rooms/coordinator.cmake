# common/wire, common/net and the coordinator
pkg_check_modules(MSGPACK REQUIRED IMPORTED_TARGET msgpack)

vneva_test(wire_codec LABEL unit SOURCES unit/wire_codec.c
  LIBS vneva_wire PkgConfig::MSGPACK cmocka)
vneva_test(net_sockets LABEL unit SOURCES unit/net_sockets.c
  LIBS vneva_net vneva_wire cmocka Threads::Threads)
vneva_test(coordinator_states LABEL unit SOURCES unit/coordinator_states.c
  LIBS vneva_coordinator_core cmocka)
vneva_test(coordinator_store LABEL unit SOURCES unit/coordinator_store.c
  LIBS vneva_store cmocka)

# the coordinator itself, with scripted agents
add_library(coordinator_cluster STATIC integration/cluster.c)
target_link_libraries(coordinator_cluster PUBLIC vneva_net vneva_wire vneva_base cmocka
  PRIVATE vneva_flags)
vneva_test(coordinator_jobs LABEL integration SOURCES integration/coordinator_jobs.c
  LIBS coordinator_cluster)
add_dependencies(coordinator_jobs vneva-coordinator)
