#define _GNU_SOURCE /* memfd_create */
#include "common/base/stage.h"
#include "common/base/clock.h"
#include "common/base/fault.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WHAT_MAX 32
#define READS_MAX 1000 /* tries to read a board that is being written */

/* sequence is odd while the writer is at it. */
struct stage_board {
    atomic_uint sequence;
    char what[WHAT_MAX], of[WHAT_MAX];
    int64_t since_ns, limit_ms, step;
    bool is_waiting;
    atomic_llong sign_ns; /* the last one; not under the sequence */
};

/* The process's own; set once, early in main. */
static struct {
    struct stage_board *board;
    struct stage_mark now;
    int64_t limit_ms;
    char who[WHAT_MAX];
    bool has_faults;
} self = {.now = {"", NULL, STAGE_FREE}};

/* ---- writing ---- */

static void begin_write(struct stage_board *board)
{
    atomic_fetch_add_explicit(&board->sequence, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
}

static void end_write(struct stage_board *board)
{
    atomic_fetch_add_explicit(&board->sequence, 1, memory_order_release);
}

static void copy_text(char out[WHAT_MAX], const char *text)
{
    size_t n = text ? strnlen(text, WHAT_MAX - 1) : 0;

    if (n)
        memcpy(out, text, n);
    out[n] = '\0';
}

static void write_now(void)
{
    struct stage_board *board = self.board;

    begin_write(board);
    copy_text(board->what, self.now.what);
    copy_text(board->of, self.now.of);
    board->since_ns = clock_mono_ns();
    board->limit_ms = self.now.kind == STAGE_FREE ? 0 : self.limit_ms;
    board->is_waiting = self.now.kind == STAGE_WAITING;
    atomic_store_explicit(&board->sign_ns, board->since_ns, memory_order_relaxed);
    end_write(board);
}

/* Tests make a rank hang here: the stage is on the board already. */
static void pass_fault_point(const char *what)
{
    char point[2 * WHAT_MAX];

    snprintf(point, sizeof(point), "%s.%s", self.who, what);
    (void)fault_hit(point); /* only hanging and killing make sense */
}

struct stage_mark stage_begin(const char *what, const char *of, enum stage_kind kind)
{
    struct stage_mark before = self.now;

    if (!self.board)
        return before;
    self.now = (struct stage_mark){what, of, kind};
    write_now();
    if (self.has_faults)
        pass_fault_point(what);
    return before;
}

void stage_end(struct stage_mark before)
{
    if (!self.board)
        return;
    self.now = before;
    write_now();
}

void stage_touch(void)
{
    if (!self.board)
        return;
    begin_write(self.board);
    self.board->since_ns = clock_mono_ns();
    end_write(self.board);
}

void stage_sign(void)
{
    if (self.board)
        atomic_store_explicit(&self.board->sign_ns, clock_mono_ns(),
                              memory_order_relaxed);
}

int stage_poll(struct pollfd *fds, nfds_t n_fds, int64_t timeout_ms)
{
    int64_t end_ms = timeout_ms < 0 ? INT64_MAX : clock_mono_ms() + timeout_ms;
    int64_t left_ms, part_ms;
    int n;

    do {
        left_ms = end_ms - clock_mono_ms();
        part_ms = left_ms < 0 ? 0 : left_ms < STAGE_SIGN_MS ? left_ms : STAGE_SIGN_MS;
        n = poll(fds, n_fds, (int)part_ms);
        stage_sign();
    } while (n == 0 && part_ms < left_ms);
    return n;
}

void stage_set_limit(int64_t ms)
{
    self.limit_ms = ms;
}

void stage_set_step(int64_t step)
{
    if (!self.board)
        return;
    begin_write(self.board);
    self.board->step = step;
    end_write(self.board);
}

static int map(struct stage_board **out, int fd, struct err *err)
{
    void *page = mmap(NULL, sizeof(**out), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (page == MAP_FAILED)
        return err_set(err, ERR_IO, "cannot map the page of stages: %s", strerror(errno));
    *out = page;
    return 0;
}

int stage_attach(int fd, const char *who, struct err *err)
{
    struct stage_board *board = NULL;
    int rc = map(&board, fd, err);

    close(fd);
    if (rc < 0)
        return -1;
    self.board = board; /* for the life of the process */
    self.has_faults = getenv("VNEVA_FAULT") != NULL;
    copy_text(self.who, who);
    return 0;
}

/* ---- reading ---- */

int stage_make(struct stage_board **out, int *fd, struct err *err)
{
    *fd = memfd_create("vneva-stage", MFD_CLOEXEC);
    if (*fd < 0 || ftruncate(*fd, sizeof(**out)) < 0) {
        err_set(err, ERR_IO, "cannot make a page of stages: %s", strerror(errno));
        goto failed;
    }
    if (map(out, *fd, err) < 0)
        goto failed;
    copy_text((*out)->what, "starting");
    (*out)->since_ns = clock_mono_ns();
    (*out)->limit_ms = STAGE_START_MS;
    (*out)->step = -1;
    return 0;
failed:
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    return -1;
}

void stage_unmake(struct stage_board *board)
{
    if (board)
        munmap(board, sizeof(*board));
}

/* The other process may be in the middle of writing, or be killed there: then the last try
 * has to do. It may write anything at all: texts are cut here. */
void stage_read(const struct stage_board *board, struct stage_now *out)
{
    struct stage_board copy;
    int64_t sign_ns;

    for (int i = 0; i < READS_MAX; i++) {
        unsigned before = atomic_load_explicit(&board->sequence, memory_order_acquire);

        memcpy(&copy, board, sizeof(copy));
        atomic_thread_fence(memory_order_acquire);
        if (before % 2 == 0 &&
            before == atomic_load_explicit(&board->sequence, memory_order_relaxed))
            break;
    }
    copy.what[WHAT_MAX - 1] = copy.of[WHAT_MAX - 1] = '\0';
    snprintf(out->text, sizeof(out->text), "%s%s%s", copy.what,
             copy.of[0] ? " of group " : "", copy.of);
    out->since_ns = copy.since_ns;
    out->limit_ms = copy.limit_ms;
    out->step = copy.step;
    if (!copy.is_waiting)
        return;
    sign_ns = atomic_load_explicit(&board->sign_ns, memory_order_relaxed);
    if (clock_mono_ns() - sign_ns < (int64_t)STAGE_SIGN_LATE_MS * 1000000)
        out->limit_ms = 0;
    else
        out->since_ns = sign_ns;
}
