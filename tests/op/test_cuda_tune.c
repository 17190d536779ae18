/* test_cuda_tune.c - which of cuBLASLt's algorithms a product takes, over the stand-ins
 *
 * The stand-in's algorithms take 3, 1 and 2 seconds of the device's time and the last, 3,
 * does not run; results are the same. The choice shows in the file that keeps it: a line is
 * the 15 numbers of the key, then the algorithm's words, of which the fourth is its number.
 */
#include "model/backend/backend.h"
#include "tests/op/check.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define N 16
#define KEY_NUMBERS 16
#define NUMBER_WORD 3
#define PATH_BYTES 512
#define TEXT_BYTES 4096

static char folder[PATH_BYTES / 4]; /* stands for ~/.cache */

/* The file of choices; false when there is none. */
static bool find_file(char path[PATH_BYTES])
{
    char place[PATH_BYTES];
    struct dirent *entry;
    bool is_there = false;
    DIR *dir;

    snprintf(place, sizeof(place), "%s/vneva/matmul", folder);
    dir = opendir(place);
    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.') {
            is_there = true;
            snprintf(path, PATH_BYTES, "%.255s/%.255s", place, entry->d_name);
        }
    if (dir)
        closedir(dir);
    return is_there;
}

/* Number of lines; *text: all of them. */
static int read_file(char text[TEXT_BYTES])
{
    char path[PATH_BYTES];
    size_t n = 0;
    FILE *file = find_file(path) ? fopen(path, "r") : NULL;
    int n_lines = 0;

    if (file) {
        n = fread(text, 1, TEXT_BYTES - 1, file);
        fclose(file);
    }
    text[n] = '\0';
    for (const char *c = text; *c; c++)
        n_lines += *c == '\n';
    return n_lines;
}

static void write_file(const char *text)
{
    char path[PATH_BYTES];
    FILE *file = find_file(path) ? fopen(path, "w") : NULL;

    if (file) {
        fputs(text, file);
        fclose(file);
    }
}

/* Where the algorithm's number stands in a line. */
static char *number_in(char *line)
{
    for (int i = 0; line && i < KEY_NUMBERS + NUMBER_WORD; i++) {
        line = strchr(line, ' ');
        line = line ? line + 1 : NULL;
    }
    return line;
}

/* c = a b of ones, or c += a b; checks what comes out. On a backend of its own. */
static void multiply(struct check *check, bool is_added)
{
    const int64_t dims[] = {N, N};
    struct matmul_args args = {.trans_a = true, .beta = is_added ? 1 : 0};
    float host[N * N];
    struct backend *b = NULL;
    struct tensor a, c;
    struct err err = {0};
    int n_wrong = 0;

    for (int i = 0; i < N * N; i++)
        host[i] = 1;
    check_that(check,
               backend_create(&b, "cuda", 0, 0, &err) == 0 &&
                   backend_tensor(b, &a, DTYPE_F32, 2, dims, &err) == 0 &&
                   backend_tensor(b, &c, DTYPE_F32, 2, dims, &err) == 0 &&
                   b->ops->upload(b, a.data, host, sizeof(host), &err) == 0 &&
                   b->ops->upload(b, c.data, host, sizeof(host), &err) == 0 &&
                   b->ops->matmul(b, &c, &a, &a, &args, &err) == 0 &&
                   b->ops->download(b, host, c.data, sizeof(host), &err) == 0,
               "%s", err.text);
    for (int i = 0; i < N * N; i++)
        n_wrong += host[i] != (is_added ? N + 1 : N);
    check_that(check, n_wrong == 0, "%d numbers are wrong: trials show", n_wrong);
    if (b) {
        b->ops->free(b, a.data);
        b->ops->free(b, c.data);
    }
    backend_destroy(b);
}

static void small_products_are_not_timed(struct check *check)
{
    char path[PATH_BYTES];

    unsetenv("VNEVA_MATMUL_TUNE");
    multiply(check, false);
    setenv("VNEVA_MATMUL_TUNE", "off", 1);
    multiply(check, false);
    check_that(check, !find_file(path), "a choice was kept");
}

static void the_fastest_algorithm_that_runs_is_kept(struct check *check)
{
    char text[TEXT_BYTES], *number;

    setenv("VNEVA_MATMUL_TUNE", "all", 1);
    multiply(check, false);
    check_that(check, read_file(text) == 1, "the file is '%s'", text);
    number = number_in(text);
    check_that(check, number && *number == '1', "the choice is '%s'", text);
}

static void what_is_added_to_does_not_see_the_trials(struct check *check)
{
    char text[TEXT_BYTES], *number;

    multiply(check, true);
    check_that(check, read_file(text) == 2, "the file is '%s'", text);
    number = number_in(strchr(text, '\n'));
    check_that(check, number && *number == '1', "the choice is '%s'", text);
}

/* As a run that goes on where another stopped, or another rank. */
static void a_choice_that_was_kept_is_not_made_again(struct check *check)
{
    char text[TEXT_BYTES], again[TEXT_BYTES], *number;

    read_file(text);
    number = number_in(text);
    if (number)
        *number = '2';
    write_file(text);
    multiply(check, false);
    multiply(check, true);
    check_that(check, read_file(again) == 2 && strcmp(text, again) == 0,
               "'%s' became '%s'", text, again);
}

static void a_choice_that_the_library_does_not_take_is_made_again(struct check *check)
{
    char text[TEXT_BYTES], *number;

    read_file(text);
    number = number_in(text);
    if (number)
        *number = '9';
    write_file(text);
    multiply(check, false);
    check_that(check, read_file(text) == 3, "the file is '%s'", text);
    multiply(check, false);
    check_that(check, read_file(text) == 3, "the file is '%s'", text);
    write_file("not a line\n16 16\n");
    multiply(check, false);
    check_that(check, read_file(text) == 3, "the file is '%s'", text);
}

static void without_a_place_for_it_nothing_is_chosen(struct check *check)
{
    char path[PATH_BYTES];

    find_file(path);
    unlink(path);
    setenv("XDG_CACHE_HOME", "/dev/null", 1);
    multiply(check, false);
    setenv("XDG_CACHE_HOME", folder, 1);
    check_that(check, !find_file(path), "a choice was kept");
}

static void a_word_that_is_none_is_refused(struct check *check)
{
    struct backend *b = NULL;
    struct err err = {0};

    setenv("VNEVA_MATMUL_TUNE", "some", 1);
    check_that(check,
               backend_create(&b, "cuda", 0, 0, &err) < 0 && err.code == ERR_INVALID &&
                   strstr(err.text, "VNEVA_MATMUL_TUNE is 'some'"),
               "'%s'", err.text);
    backend_destroy(b);
    unsetenv("VNEVA_MATMUL_TUNE");
}

static void remove_folder(void)
{
    char path[PATH_BYTES];

    if (find_file(path))
        unlink(path);
    snprintf(path, sizeof(path), "%s/vneva/matmul", folder);
    rmdir(path);
    snprintf(path, sizeof(path), "%s/vneva", folder);
    rmdir(path);
    rmdir(folder);
}

int main(void)
{
    struct check check = {0};
    const char *place = getenv("TMPDIR");

    snprintf(folder, sizeof(folder), "%.90s/vneva-tune-XXXXXX", place ? place : "/tmp");
    if (!mkdtemp(folder)) {
        perror(folder);
        return 1;
    }
    setenv("XDG_CACHE_HOME", folder, 1);
    check_run(&check, small_products_are_not_timed);
    check_run(&check, the_fastest_algorithm_that_runs_is_kept);
    check_run(&check, what_is_added_to_does_not_see_the_trials);
    check_run(&check, a_choice_that_was_kept_is_not_made_again);
    check_run(&check, a_choice_that_the_library_does_not_take_is_made_again);
    check_run(&check, without_a_place_for_it_nothing_is_chosen);
    check_run(&check, a_word_that_is_none_is_refused);
    remove_folder();
    return check_end(&check);
}
