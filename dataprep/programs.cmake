vneva_program(vneva-data
  SOURCES vneva_data.c vneva_data_prepare.c vneva_data_rejects.c vneva_data_show.c
    vneva_data_synth.c vneva_data_tokenize.c vneva_data_train.c
  LIBS vneva_prepare_from_spec vneva_prepare vneva_synth vneva_spec)
