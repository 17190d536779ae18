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
