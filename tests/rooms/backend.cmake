# Operation tests: own harness (op/check.h), no cmocka.
vneva_test(test_op_backends LABEL op
  SOURCES op/test_op_backends.c op/op_cases.c op/op_run.c LIBS vneva_backend)
