# keys: who may speak to a coordinator over a network
vneva_test(net_keys LABEL unit SOURCES unit/net_keys.c LIBS vneva_net vneva_base cmocka)
vneva_test(net_gate LABEL unit SOURCES unit/net_gate.c unit/gate_place.c
  LIBS vneva_net vneva_wire cmocka)
vneva_test(net_strangers LABEL unit SOURCES unit/net_strangers.c unit/gate_place.c
  LIBS vneva_net vneva_wire PkgConfig::ZMQ cmocka)
vneva_test(coordinator_roles LABEL unit SOURCES unit/coordinator_roles.c
  LIBS vneva_coordinator_core cmocka)
vneva_test(keys_cluster LABEL integration
  SOURCES integration/keys_cluster.c integration/keys_site.c
  LIBS coordinator_cluster vneva_coordinator_core PkgConfig::ZMQ)
add_dependencies(keys_cluster vneva vneva-coordinator vneva-worker vneva-rank)
