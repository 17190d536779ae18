vneva_test(media_exact LABEL integration
  SOURCES integration/media_exact.c integration/media_linear.c
  LIBS vneva_media)
vneva_test(media_pool LABEL fault
  SOURCES fault/media_pool.c integration/media_clips.c
  LIBS vneva_media vneva_decode_pool cmocka)
add_dependencies(media_pool vneva-decode)
vneva_test(media_synth LABEL unit
  SOURCES unit/media_synth.c
  LIBS vneva_synth cmocka m)
vneva_test(media_preprocess LABEL unit
  SOURCES unit/media_preprocess.c
  LIBS vneva_media cmocka)
vneva_test(media_codecs LABEL integration
  SOURCES integration/media_codecs.c integration/media_clips.c integration/media_linear.c
  LIBS vneva_media cmocka)
vneva_test(media_damaged LABEL fault
  SOURCES fault/media_damaged.c integration/media_clips.c
  LIBS vneva_media cmocka)

# Not a test: `python3 tests/bench/bench_decode.py build/bin/bench_decode FILE...`
vneva_program(bench_decode SOURCES bench/bench_decode.c LIBS vneva_media)
