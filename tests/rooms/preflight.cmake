vneva_test(exchange_files LABEL integration SOURCES integration/exchange_files.c
  LIBS vneva_exchange_files cmocka)
vneva_test(node_phases LABEL unit SOURCES unit/node_phases.c LIBS vneva_phases cmocka)
vneva_test(node_preflight LABEL unit SOURCES unit/node_preflight.c
  LIBS vneva_preflight cmocka)
vneva_test(node_probe LABEL unit SOURCES unit/node_probe.c
  LIBS vneva_preflight cmocka)
vneva_test(preflight_nodes LABEL integration SOURCES integration/preflight_nodes.c
  LIBS vneva_preflight cmocka)
add_test(NAME bundle COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/integration/bundle.sh)
set_tests_properties(bundle PROPERTIES LABELS integration TIMEOUT 600 SKIP_RETURN_CODE 77
  ENVIRONMENT "VNEVA_SOURCE=${CMAKE_SOURCE_DIR};VNEVA_BIN=${CMAKE_BINARY_DIR}/bin")
