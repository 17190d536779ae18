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
  SOURCES fault/media_pool.c fault/pool_help.c integration/media_clips.c
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

# FFmpeg's NVDEC path without a GPU: it opens libcuda and libnvcuvid by name, and finds ours
# in a folder that only these tests look into.
find_path(FFNVCODEC_INCLUDE_DIR ffnvcodec/dynlink_cuviddec.h REQUIRED) # libffmpeg-nvenc-dev
set(nvdec_host ${CMAKE_BINARY_DIR}/tests/nvdec_host)
foreach(library cuda nvcuvid)
  add_library(nvdec_host_${library} SHARED nvdec_host/${library}.c)
  target_include_directories(nvdec_host_${library} PRIVATE ${FFNVCODEC_INCLUDE_DIR})
  target_link_libraries(nvdec_host_${library} PRIVATE vneva_flags)
  set_target_properties(nvdec_host_${library} PROPERTIES OUTPUT_NAME ${library} SOVERSION 1
    LIBRARY_OUTPUT_DIRECTORY ${nvdec_host})
endforeach()
target_sources(nvdec_host_nvcuvid PRIVATE nvdec_host/h264.c)
pkg_check_modules(AVCODEC REQUIRED IMPORTED_TARGET libavcodec libavutil)
target_link_libraries(nvdec_host_nvcuvid PRIVATE PkgConfig::AVCODEC)

function(nvdec_host_test name)
  vneva_test(${name} ${ARGN})
  if(TARGET ${name})
    add_dependencies(${name} nvdec_host_cuda nvdec_host_nvcuvid)
    set_property(TEST ${name} APPEND PROPERTY ENVIRONMENT "LD_LIBRARY_PATH=${nvdec_host}")
  endif()
endfunction()

foreach(name media_gpu media_gpu_choice)
  nvdec_host_test(${name} LABEL integration
    SOURCES integration/${name}.c integration/media_gpu_help.c integration/media_clips.c
    nvdec_host/log.c
    LIBS vneva_media cmocka)
endforeach()
if(TARGET media_gpu_choice) # time as the tests say
  target_link_options(media_gpu_choice PRIVATE -Wl,--wrap=clock_mono_ns)
endif()
nvdec_host_test(media_pool_gpu LABEL fault
  SOURCES fault/media_pool_gpu.c fault/pool_help.c integration/media_clips.c
  nvdec_host/log.c
  LIBS vneva_media vneva_decode_pool cmocka)
if(TARGET media_pool_gpu)
  add_dependencies(media_pool_gpu vneva-decode)
endif()

# Not a test: `python3 tests/bench/bench_decode.py build/bin/bench_decode FILE...`
vneva_program(bench_decode SOURCES bench/bench_decode.c LIBS vneva_media)
