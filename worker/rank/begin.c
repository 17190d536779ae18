#define _GNU_SOURCE /* flock */
#include "worker/rank/begin.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "worker/rank/checkpoints.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define LOCK_NAME "vneva.lock"
#define LOCK_WAIT_MS 5000 /* for a rank of the same job that is about to end */
#define LOCK_LOOK_MS 50
#define HOLDER_MAX 512 /* bytes of what a lock says of its holder */
#define NOTE_MAX (8 * FS_PATH_MAX)

static const char *const how_names[] = {
    [BEGIN_FRESH] = "fresh", [BEGIN_RESTORE] = "restore", [BEGIN_RESUME] = "resume"};

/* ---- the folder ---- */

static int find_folder(struct begin *begin, const struct rank *rank, struct err *err)
{
    const struct spec *spec = rank->spec;
    const char *explicit_dir = spec->exp_manager.explicit_log_dir;
    const char *exp_dir = spec->exp_manager.exp_dir;

    begin->is_shared = explicit_dir || exp_dir;
    if (explicit_dir)
        return fs_path(begin->folder, err, "%s", explicit_dir);
    if (exp_dir && spec->exp_manager.resume_if_exists)
        return fs_path(begin->folder, err, "%s/%s", exp_dir, spec->exp_manager.name);
    if (exp_dir)
        return fs_path(begin->folder, err, "%s/%s/job-%" PRId64, exp_dir,
                       spec->exp_manager.name, rank->start->job);
    return fs_path(begin->folder, err, "%s", rank->start->folder);
}

/* "job 3 (/home/x/.vneva/jobs/3)": the folder tells homes apart. */
static void write_holder(char out[HOLDER_MAX], const struct rank *rank)
{
    snprintf(out, HOLDER_MAX, "job %" PRId64 " (%s)", rank->start->job,
             rank->start->folder);
}

static void read_holder(char out[HOLDER_MAX], int fd)
{
    ssize_t n = pread(fd, out, HOLDER_MAX - 1, 0);

    out[n > 0 ? n : 0] = '\0';
}

/* An earlier attempt of the job may not have ended quite; another job is not waited for.
 * has_begun: this job was here before. */
static int wait_for_lock(struct begin *begin, const struct rank *rank, bool has_begun,
                         const char *path, struct err *err)
{
    int64_t end_ms = clock_mono_ms() + LOCK_WAIT_MS;
    char mine[HOLDER_MAX], holder[HOLDER_MAX] = "";

    write_holder(mine, rank);
    while (flock(begin->lock, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return err_set(err, ERR_IO, "cannot lock '%s': %s", path, strerror(errno));
        read_holder(holder, begin->lock);
        if (strcmp(holder, mine) != 0 || clock_mono_ms() > end_ms)
            return err_set(err, ERR_EXISTS,
                           "%s works in '%s': wait for its end, or set another "
                           "exp_manager.explicit_log_dir",
                           holder[0] ? holder : "another job", begin->folder);
        poll(NULL, 0, LOCK_LOOK_MS);
    }
    read_holder(holder, begin->lock);
    if (has_begun && strcmp(holder, mine) != 0)
        return err_set(err, ERR_INVALID,
                       "%s went on in '%s' since this job was last at work there", holder,
                       begin->folder);
    if (ftruncate(begin->lock, 0) < 0 ||
        pwrite(begin->lock, mine, strlen(mine), 0) != (ssize_t)strlen(mine))
        return err_set(err, ERR_IO, "cannot write '%s': %s", path, strerror(errno));
    return 0;
}

static int take_lock(struct begin *begin, const struct rank *rank, bool has_begun,
                     struct err *err)
{
    char path[FS_PATH_MAX];

    if (fs_path(path, err, "%s/checkpoints", begin->folder) < 0 ||
        fs_make_dirs(path, 0755, err) < 0 ||
        fs_path(path, err, "%s/" LOCK_NAME, begin->folder) < 0)
        return err_wrap(err, "exp_manager.explicit_log_dir");
    begin->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (begin->lock < 0)
        return err_set(err, ERR_IO, "cannot open '%s': %s", path, strerror(errno));
    return wait_for_lock(begin, rank, has_begun, path, err);
}

/* So that the job's folder still has its checkpoints, wherever they are. */
static int link_checkpoints(const struct begin *begin, const struct rank *rank,
                            struct err *err)
{
    char link[FS_PATH_MAX], target[FS_PATH_MAX];

    if (fs_path(link, err, "%s/checkpoints", rank->start->folder) < 0 ||
        fs_path(target, err, "%s/checkpoints", begin->folder) < 0)
        return -1;
    if (symlink(target, link) < 0 && errno != EEXIST)
        return err_set(err, ERR_IO, "cannot make '%s': %s", link, strerror(errno));
    return 0;
}

/* ---- what to begin with ---- */

const char *const begin_part_keys[PARAM_GROUP_COUNT] = {
    [PARAM_VISION] = "model.mm_cfg.vision_encoder.from_pretrained",
    [PARAM_PROJECTOR] = "model.mm_cfg.pretrain_mm_mlp_adapter",
    [PARAM_LLM] = "model.mm_cfg.llm.from_pretrained",
};

/* The newest checkpoint of a run; anything else is what it is, for weights_open to see. */
static int find_weights(char *out, const char *path, struct err *err)
{
    struct err none;

    if (!fs_exists(path))
        return err_set(err, ERR_NOT_FOUND, "'%s' is not there", path);
    if (checkpoints_find(out, path, &none) == 0)
        return 0;
    return fs_path(out, err, "%s", path);
}

static int find_parts(struct begin *begin, const struct spec *spec, struct err *err)
{
    const char *const paths[PARAM_GROUP_COUNT] = {
        [PARAM_VISION] = spec->vision.from_pretrained,
        [PARAM_PROJECTOR] = spec->mm_cfg.pretrain_mm_mlp_adapter,
        [PARAM_LLM] = spec->mm_cfg.llm_from_pretrained,
    };

    for (int i = 0; i < PARAM_GROUP_COUNT; i++)
        if (paths[i] && find_weights(begin->parts[i], paths[i], err) < 0)
            return err_wrap(err, "%s", begin_part_keys[i]);
    return 0;
}

/* Looks into a folder that other jobs have used. 1: it says what to begin with. */
static int look_into_folder(struct begin *begin, const struct rank *rank, struct err *err)
{
    const struct spec *spec = rank->spec;
    struct err none;

    if (checkpoints_find(begin->from, begin->folder, &none) == 0) {
        if (!spec->exp_manager.resume_if_exists)
            return err_set(err, ERR_INVALID,
                           "'%s' has checkpoints of an earlier run (the newest: '%s'): "
                           "set exp_manager.resume_if_exists to go on from it, or "
                           "another exp_manager.explicit_log_dir",
                           begin->folder, begin->from);
        begin->how = BEGIN_RESUME;
        return 1;
    }
    begin->from[0] = '\0';
    if (none.code != ERR_NOT_FOUND) {
        *err = none;
        return -1;
    }
    if (spec->exp_manager.resume_if_exists &&
        !spec->exp_manager.resume_ignore_no_checkpoint)
        return err_set(err, ERR_NOT_FOUND,
                       "exp_manager.resume_if_exists: '%s' has no checkpoint to go on "
                       "from; for a first run set resume_ignore_no_checkpoint",
                       begin->folder);
    return 0;
}

static int choose(struct begin *begin, const struct rank *rank, struct err *err)
{
    const char *resume = rank->spec->exp_manager.resume_from_checkpoint;
    const char *restore = rank->spec->model.restore_from_path;
    int rc = begin->is_shared ? look_into_folder(begin, rank, err) : 0;

    if (rc != 0)
        return rc < 0 ? -1 : 0;
    if (resume) {
        begin->how = BEGIN_RESUME;
        if (checkpoints_find(begin->from, resume, err) < 0)
            return err_wrap(err, "exp_manager.resume_from_checkpoint");
    } else if (restore) {
        begin->how = BEGIN_RESTORE;
        if (find_weights(begin->from, restore, err) < 0)
            return err_wrap(err, "model.restore_from_path");
    } else {
        return find_parts(begin, rank->spec, err);
    }
    return 0;
}

/* ---- the note ---- */

static int write_note(const struct begin *begin, const char *path, struct err *err)
{
    struct json *note = json_new(JSON_OBJECT);
    struct buf text = BUF_INIT;
    int rc = json_set(note, "how", json_new_string(how_names[begin->how]), err);

    if (rc == 0)
        rc = json_set(note, "from", json_new_string(begin->from), err);
    for (int i = 0; rc == 0 && i < PARAM_GROUP_COUNT; i++)
        if (begin->parts[i][0])
            rc =
                json_set(note, begin_part_keys[i], json_new_string(begin->parts[i]), err);
    if (rc == 0) {
        json_write(&text, note, 2);
        buf_add_char(&text, '\n');
        rc = buf_check(&text, err);
    }
    if (rc == 0)
        rc = fs_write_file_atomic(path, buf_str(&text), text.n_bytes, err);
    json_free(note);
    buf_fini(&text);
    return rc;
}

static int take_note(struct begin *begin, const struct json *note, struct err *err)
{
    const char *how = json_get_string(note, "how"), *from = json_get_string(note, "from");
    int rc;

    if (!how || !from)
        return err_set(err, ERR_FORMAT, "it does not say how the job begins");
    for (size_t i = 0; i < sizeof(how_names) / sizeof(how_names[0]); i++)
        if (strcmp(how_names[i], how) == 0)
            begin->how = (enum begin_how)i;
    rc = fs_path(begin->from, err, "%s", from);
    for (int i = 0; rc == 0 && i < PARAM_GROUP_COUNT; i++) {
        const char *part = json_get_string(note, begin_part_keys[i]);

        rc = fs_path(begin->parts[i], err, "%s", part ? part : "");
    }
    return rc;
}

static int read_note(struct begin *begin, const char *path, struct err *err)
{
    struct buf text = BUF_INIT;
    struct json *note = NULL;
    int rc = fs_read_file(&text, path, NOTE_MAX, err);

    if (rc == 0)
        rc = json_parse(&note, buf_str(&text), text.n_bytes, err);
    if (rc == 0)
        rc = take_note(begin, note, err);
    json_free(note);
    buf_fini(&text);
    return rc < 0 ? err_wrap(err, "cannot read '%s'", path) : 0;
}

/* Rank 0, before the others go on. */
static int begin_first(struct begin *begin, const struct rank *rank, const char *note,
                       struct err *err)
{
    bool has_begun = fs_exists(note);

    if (begin->is_shared && (take_lock(begin, rank, has_begun, err) < 0 ||
                             link_checkpoints(begin, rank, err) < 0))
        return -1;
    if (checkpoints_clean_unfinished(begin->folder, err) < 0)
        return -1;
    if (has_begun)
        return 0;
    if (choose(begin, rank, err) < 0)
        return -1;
    if (begin->how != BEGIN_FRESH)
        log_info("%s from '%s'", how_names[begin->how], begin->from);
    return write_note(begin, note, err);
}

int begin_open(struct begin *begin, const struct rank *rank, struct err *err)
{
    char note[FS_PATH_MAX];

    *begin = (struct begin){.lock = -1};
    if (find_folder(begin, rank, err) < 0 ||
        fs_path(note, err, "%s/begin.json", rank->start->folder) < 0)
        return -1;
    if (rank->layout.rank == 0 && begin_first(begin, rank, note, err) < 0)
        return -1;
    if (comm_barrier(groups_tensor(rank->groups), err) < 0 ||
        comm_barrier(groups_data(rank->groups), err) < 0)
        return -1;
    return read_note(begin, note, err);
}

void begin_close(struct begin *begin)
{
    if (begin->lock >= 0)
        close(begin->lock); /* lets go of it */
    begin->lock = -1;
}
