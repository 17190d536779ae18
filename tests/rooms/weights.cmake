# model/weights: other people's folders
vneva_test(unit_weights_folders LABEL unit SOURCES unit/weights_folders.c
  LIBS vneva_tiny vneva_weights)
vneva_test(unit_weights_config LABEL unit SOURCES unit/weights_config.c
  LIBS vneva_tiny vneva_weights)
