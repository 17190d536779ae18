# netns: several hosts on one machine, as network namespaces. Needs root and iproute2; without
# root it is reported as skipped.
vneva_test(across_hosts LABEL fault TIMEOUT 600
  SOURCES netns/across_hosts.c netns/site.c netns/lan.c
  LIBS vneva_test_home Threads::Threads)
add_dependencies(across_hosts vneva-coordinator vneva-worker vneva-rank vneva-decode)
set_tests_properties(across_hosts PROPERTIES COST 800) # mostly waits: begin early
