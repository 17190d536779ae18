# every real video of the quickstart against a plain decode of the whole
add_executable(media_exact integration/media_exact.c integration/media_linear.c)
target_link_libraries(media_exact PRIVATE vneva_media vneva_flags)
set_target_properties(media_exact PROPERTIES
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
add_test(NAME media_real
  COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/integration/media_real.sh
    $<TARGET_FILE:media_exact> ${CMAKE_SOURCE_DIR}/build/quickstart/videos)
set_tests_properties(media_real PROPERTIES LABELS integration TIMEOUT 600
  SKIP_RETURN_CODE 77)
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
