# slurm/launch, and what a launcher's environment says
vneva_test(launch_environment LABEL unit SOURCES unit/launch_environment.c
  LIBS vneva_environment cmocka)
vneva_test(launch_texts LABEL unit SOURCES unit/launch_texts.c LIBS vneva_launch cmocka)
# with stand-ins for Slurm's and Base Command Platform's programs
foreach(name launch_slurm launch_bcp)
  add_test(NAME ${name}
    COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/integration/${name}.sh)
  set_tests_properties(${name} PROPERTIES LABELS integration TIMEOUT 120
    ENVIRONMENT "VNEVA_SOURCE=${CMAKE_SOURCE_DIR};VNEVA_BIN=${CMAKE_BINARY_DIR}/bin")
endforeach()
# with the real vneva-node, a job over two nodes: under a real Slurm of two nodes, and on
# Base Command Platform's stand-ins with files and with Open MPI's mpirun
add_test(NAME slurm_launch COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/slurm/launch.sh)
add_test(NAME launch_bcp_job
  COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/integration/launch_bcp_job.sh)
set_tests_properties(slurm_launch launch_bcp_job PROPERTIES LABELS integration TIMEOUT 400
  RESOURCE_LOCK slurm COST 900 ENVIRONMENT "VNEVA_SOURCE=${CMAKE_SOURCE_DIR};\
VNEVA_BIN=${CMAKE_BINARY_DIR}/bin;VNEVA_TESTS=${CMAKE_BINARY_DIR}/tests")
