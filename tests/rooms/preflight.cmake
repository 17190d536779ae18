vneva_test(exchange_files LABEL integration SOURCES integration/exchange_files.c
  LIBS vneva_exchange_files cmocka)
