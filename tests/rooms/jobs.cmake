vneva_test(spec_read LABEL unit SOURCES unit/spec_read.c LIBS vneva_spec cmocka)
vneva_test(spec_schema LABEL unit SOURCES unit/spec_schema.c LIBS vneva_spec cmocka)
vneva_test(spec_estimate LABEL integration SOURCES integration/spec_estimate.c
  LIBS vneva_spec vneva_neva cmocka)
