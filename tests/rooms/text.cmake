vneva_test(text_tokenizer LABEL unit SOURCES unit/text_tokenizer.c LIBS vneva_text cmocka)
vneva_test(text_conversation LABEL unit SOURCES unit/text_conversation.c
  LIBS vneva_text cmocka)
vneva_test(dataset_read LABEL unit SOURCES unit/dataset_read.c LIBS vneva_dataset cmocka)
