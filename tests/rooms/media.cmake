vneva_test(media_exact LABEL integration
  SOURCES integration/media_exact.c integration/media_linear.c
  LIBS vneva_media)
