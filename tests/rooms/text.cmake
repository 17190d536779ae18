vneva_test(text_tokenizer LABEL unit SOURCES unit/text_tokenizer.c LIBS vneva_text cmocka)
vneva_test(tokenizer_files LABEL unit SOURCES unit/tokenizer_files.c LIBS vneva_text cmocka)
vneva_test(tokenizer_golden LABEL unit SOURCES unit/tokenizer_golden.c
  LIBS vneva_text cmocka)
vneva_test(text_conversation LABEL unit SOURCES unit/text_conversation.c
  LIBS vneva_text cmocka)
vneva_test(text_templates LABEL unit SOURCES unit/text_templates.c
  LIBS vneva_text vneva_spec cmocka)
vneva_test(dataset_read LABEL unit SOURCES unit/dataset_read.c LIBS vneva_dataset cmocka)

add_library(test_fake_frames STATIC support/fake_frames.c)
target_link_libraries(test_fake_frames PUBLIC vneva_base PRIVATE vneva_flags)
foreach(part dataset sources nemo media)
  vneva_test(prepare_${part} LABEL integration
    SOURCES integration/prepare_${part}.c support/prepare_help.c
    LIBS vneva_prepare test_fake_frames cmocka)
endforeach()
vneva_test(prepare_restart LABEL fault SOURCES fault/prepare_restart.c
  LIBS vneva_prepare test_fake_frames cmocka)

add_test(NAME data_cli COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/integration/data_cli.sh)
set_tests_properties(data_cli PROPERTIES LABELS integration TIMEOUT 120
  ENVIRONMENT "VNEVA_SOURCE=${CMAKE_SOURCE_DIR};VNEVA_BIN=${CMAKE_BINARY_DIR}/bin")
