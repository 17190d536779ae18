# Operation tests: own harness (op/check.h), no cmocka.
vneva_test(test_op_ref LABEL op SOURCES op/test_op_ref.c LIBS vneva_backend)
vneva_test(op_sample LABEL op SOURCES op/op_sample.c op/expect.c LIBS vneva_backend m)
vneva_test(test_op_grad LABEL op SOURCES op/test_op_grad.c LIBS vneva_backend)
# The table of operations that backends are compared over.
add_library(vneva_op_cases STATIC op/op_cases.c op/op_cases_dense.c op/op_cases_attention.c
  op/op_cases_rows.c op/op_cases_update.c op/op_run.c op/op_compare.c)
target_link_libraries(vneva_op_cases PUBLIC vneva_backend PRIVATE vneva_flags)
vneva_test(test_op_backends LABEL op SOURCES op/test_op_backends.c LIBS vneva_op_cases)
if(TARGET vneva_backend_cpu)
  vneva_test(test_cpu_kern LABEL op SOURCES op/test_cpu_kern.c LIBS vneva_backend_cpu)
endif()

# Not a test: `build/bin/bench_ops [threads]` prints the rates of this machine.
vneva_program(bench_ops SOURCES bench/bench_ops.c LIBS vneva_backend)
