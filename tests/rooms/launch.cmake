# slurm/launch, and what a launcher's environment says
vneva_test(launch_environment LABEL unit SOURCES unit/launch_environment.c
  LIBS vneva_environment cmocka)
