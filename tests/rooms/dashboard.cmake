# jobs/dashboard
add_library(prometheus_check STATIC support/prometheus_check.c)
target_link_libraries(prometheus_check PUBLIC vneva_base PRIVATE vneva_flags)
vneva_test(dashboard_parts LABEL unit SOURCES unit/dashboard_parts.c
  LIBS vneva_dashboard prometheus_check cmocka)
vneva_test(dashboard_ask LABEL unit SOURCES unit/dashboard_ask.c
  LIBS vneva_dashboard cmocka Threads::Threads)
add_library(http_talk STATIC integration/http_talk.c)
target_link_libraries(http_talk PUBLIC coordinator_cluster PRIVATE vneva_flags)
foreach(test dashboard_http dashboard_token)
  vneva_test(${test} LABEL integration SOURCES integration/${test}.c
    LIBS http_talk prometheus_check)
  add_dependencies(${test} vneva vneva-dashboard vneva-coordinator)
endforeach()
