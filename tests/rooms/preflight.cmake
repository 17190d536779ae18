vneva_test(exchange_files LABEL integration SOURCES integration/exchange_files.c
  LIBS vneva_exchange_files cmocka)
vneva_test(node_phases LABEL unit SOURCES unit/node_phases.c LIBS vneva_phases cmocka)
vneva_test(node_preflight LABEL unit SOURCES unit/node_preflight.c
  LIBS vneva_preflight cmocka)
vneva_test(preflight_nodes LABEL integration SOURCES integration/preflight_nodes.c
  LIBS vneva_preflight cmocka)
