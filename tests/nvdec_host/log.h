/* log.h - what the stand-ins of the driver and its decoder were asked, for tests: a file in
 * the folder of media_clips.h, which they and all processes that load them append to
 */
#ifndef VNEVA_TESTS_NVDEC_HOST_LOG_H
#define VNEVA_TESTS_NVDEC_HOST_LOG_H

/* From here on; NVDEC_HOST_LOG says where. */
void nvdec_log_start(void);
/* Empty again. */
void nvdec_log_clear(void);
/* Lines that begin so. */
int nvdec_log_count(const char *what);

#endif
