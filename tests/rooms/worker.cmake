# worker: agent and rank, and programs that stand in for their peers.
vneva_room(vneva_pump SOURCES ${CMAKE_SOURCE_DIR}/worker/rank/pump.c
  LIBS vneva_wire vneva_base)
vneva_program(fake_rank SOURCES support/fake_rank.c LIBS vneva_pump)
set_target_properties(fake_rank PROPERTIES OUTPUT_NAME vneva-rank
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/pools)
vneva_test(worker_agent LABEL integration SOURCES integration/worker_agent.c
  LIBS vneva_agent cmocka ARGS $<TARGET_FILE:fake_rank>)
add_dependencies(worker_agent fake_rank)
foreach(test worker_order worker_config worker_run_files worker_sources
    worker_pictures spec_nemo)
  vneva_test(${test} LABEL unit SOURCES unit/${test}.c LIBS vneva_rank cmocka)
endforeach()
foreach(test worker_rank worker_evaluate)
  vneva_test(${test} LABEL integration
    SOURCES integration/${test}.c integration/worker_world.c integration/worker_gang.c
    integration/worker_data.c
    LIBS vneva_agent vneva_checkpoint vneva_synth vneva_text vneva_spec cmocka)
  add_dependencies(${test} vneva-rank vneva-decode)
endforeach()
add_dependencies(worker_rank vneva_cuda_host nvdec_host_cuda nvdec_host_nvcuvid)
vneva_room(vneva_test_home SOURCES integration/worker_home.c integration/worker_data.c
  LIBS vneva_net vneva_wire vneva_synth vneva_text vneva_spec cmocka)
vneva_test(worker_jobs LABEL integration SOURCES integration/worker_jobs.c
  LIBS vneva_test_home vneva_checkpoint)
vneva_test(worker_again LABEL integration SOURCES integration/worker_again.c
  LIBS vneva_test_home)
vneva_test(worker_weights LABEL integration SOURCES integration/worker_weights.c
  LIBS vneva_test_home vneva_weights)
vneva_test(worker_resume LABEL fault SOURCES fault/worker_resume.c LIBS vneva_test_home
  TIMEOUT 600)
add_dependencies(worker_weights vneva-model)
vneva_test(worker_stuck LABEL fault SOURCES fault/worker_stuck.c LIBS vneva_test_home
  TIMEOUT 300)
foreach(test worker_jobs worker_again worker_weights worker_resume worker_stuck)
  add_dependencies(${test} vneva vneva-coordinator vneva-worker vneva-rank vneva-decode)
endforeach()
add_dependencies(worker_jobs vneva-generate)
vneva_test(worker_loader LABEL integration
  SOURCES integration/worker_loader.c integration/worker_data.c
  LIBS vneva_rank vneva_synth vneva_media vneva_text vneva_spec cmocka)
cuda_host_test(worker_validation LABEL integration SOURCES integration/worker_validation.c
  LIBS vneva_rank vneva_tiny vneva_cuda_host cmocka)
vneva_test(gpu_memory LABEL unit SOURCES unit/gpu_memory.c LIBS vneva_agent cmocka)
add_library(vneva_fake_nvml SHARED unit/fake_nvml.c)
target_link_libraries(vneva_fake_nvml PRIVATE vneva_flags)
set_target_properties(vneva_fake_nvml PROPERTIES OUTPUT_NAME nvidia-ml SOVERSION 1
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/fake_nvml)
if(TARGET gpu_memory)
  add_dependencies(gpu_memory vneva_fake_nvml)
  set_tests_properties(gpu_memory PROPERTIES
    ENVIRONMENT "LD_LIBRARY_PATH=${CMAKE_BINARY_DIR}/tests/fake_nvml")
endif()
