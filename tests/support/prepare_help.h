/* prepare_help.h - what tests of prepare share: a folder, media, one call for all of it
 *
 * The folder holds media/good.mp4 (5 frames), media/sub/other.mp4 (3), media/long.mp4 (90)
 * and media/junk.mp4, which does not decode; see fake_frames.h.
 */
#ifndef VNEVA_TESTS_SUPPORT_PREPARE_HELP_H
#define VNEVA_TESTS_SUPPORT_PREPARE_HELP_H

#include "common/base/fs.h"
#include "dataprep/dataset/dataset.h"
#include "dataprep/prepare/prepare.h"
#include "tests/support/fake_frames.h"

/* A path in the test's folder; good for the whole run. */
const char *in_folder(const char *name);
const char *test_folder(void);
void write_text(const char *name, const char *text);
void run_command(const char *command);

struct prepare_config config_for(const char *const *data, int n_data, const char *media,
                                 const char *output);
/* Plans, prepares all ranges, finishes. Returns what prepare_finish does. */
int prepare(const struct prepare_config *config, struct json **summary, int *n_requests,
            struct err *err);
struct dataset *prepare_and_open(const struct prepare_config *config);
struct json *read_lines(const char *path);

#define ASK(video, question, answer)                                                     \
    "\"video\": " video                                                                  \
    ", \"conversations\": [{\"from\": \"human\", \"value\": \"" question                 \
    "\"}, {\"from\": \"gpt\", \"value\": \"" answer "\"}]}\n"

/* Makes the folder, runs the tests in it, removes it. For main. */
struct CMUnitTest;
int run_prepare_tests(const char *name, const struct CMUnitTest *tests, size_t n);

#endif
