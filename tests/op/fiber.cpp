#include "tests/op/fiber.h"

#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define FIBER_ASAN 1
#else
#define FIBER_ASAN 0
#endif

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#define STACK_BYTES ((size_t)256 * 1024)
#define GUARD_BYTES 64 /* before and behind each shared array */
#define GUARD_VALUE 0xa5
#define ARRAYS_MAX 16 /* shared arrays of a kernel */
#define ERROR_TEXT_MAX 256

namespace
{

/* ---- switching stacks ---- */

struct context {
#if defined(__x86_64__)
    void *sp;
#else
    ucontext_t u;
#endif
    void *fake_stack; /* AddressSanitizer's */
    const void *stack_bottom;
    size_t stack_bytes;
};

#if defined(__x86_64__)
extern "C" void fiber_swap(void **save, void *load);
asm(".text\n"
    ".globl fiber_swap\n"
    ".hidden fiber_swap\n"
    ".type fiber_swap, @function\n"
    "fiber_swap:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp, (%rdi)\n"
    "mov %rsi, %rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\n"
    "ret\n"
    ".size fiber_swap, .-fiber_swap\n");

void context_start(context *c, char *stack, void (*entry)())
{
    void **top = (void **)(stack + STACK_BYTES);

    *--top = nullptr; /* entry never returns; its stack is aligned as after a call */
    *--top = (void *)entry;
    for (int i = 0; i < 6; i++)
        *--top = nullptr;
    c->sp = top;
}
#else
void context_start(context *c, char *stack, void (*entry)())
{
    getcontext(&c->u);
    c->u.uc_stack.ss_sp = stack;
    c->u.uc_stack.ss_size = STACK_BYTES;
    c->u.uc_link = nullptr;
    makecontext(&c->u, entry, 0);
}
#endif

void context_switch(context *from, context *to, bool is_last)
{
#if FIBER_ASAN
    __sanitizer_start_switch_fiber(is_last ? nullptr : &from->fake_stack,
                                   to->stack_bottom, to->stack_bytes);
#else
    (void)is_last;
#endif
#if defined(__x86_64__)
    fiber_swap(&from->sp, to->sp);
#else
    swapcontext(&from->u, &to->u);
#endif
#if FIBER_ASAN
    __sanitizer_finish_switch_fiber(from->fake_stack, nullptr, nullptr);
#endif
}

/* ---- threads of a block ---- */

enum state { READY, AT_BARRIER, AT_WARP, DONE };

struct site {
    const char *file;
    int line;
    unsigned mask;
};

bool same_site(const site &a, const site &b)
{
    return a.line == b.line && a.mask == b.mask && strcmp(a.file, b.file) == 0;
}

struct copy {
    void *dst;
    const void *src;
    unsigned group;
};

struct thread {
    context ctx;
    fiber_place place;
    enum state state;
    int index;
    struct site at;           /* barrier or shuffle */
    std::vector<copy> copies; /* on their way, oldest first */
    unsigned group;           /* that the next copy belongs to */
};

struct warp {
    uint64_t slots[2][FIBER_WARP]; /* of this meeting and of the one before */
    fiber_together together[2];
    unsigned n_meetings;
};

struct shared_array {
    const char *file;
    int line;
    char *data;
    size_t n_bytes;
};

struct runner {
    thread threads[FIBER_THREADS_MAX];
    warp warps[FIBER_THREADS_MAX / FIBER_WARP];
    context main;
    char *stacks;
    thread *current;
    const std::function<void()> *body;
    int n_threads;
    fiber_order order;
    char shared[FIBER_SHARED_MAX + 2 * GUARD_BYTES * ARRAYS_MAX];
    size_t shared_used, static_bytes;
    shared_array arrays[ARRAYS_MAX];
    int n_arrays;
    unsigned n_copies; /* of asynchronous ones: some are early */
    char error[ERROR_TEXT_MAX];
    bool has_failed;

    runner();
    ~runner();
};

runner::runner()
    : warps(), main(), current(nullptr), body(nullptr), n_threads(0),
      order(FIBER_FORWARD), shared_used(0), static_bytes(0), n_arrays(0), n_copies(0),
      error(""), has_failed(false)
{
    size_t n_bytes = STACK_BYTES * FIBER_THREADS_MAX;

    stacks = (char *)mmap(nullptr, n_bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED) {
        perror("stacks of fibers");
        abort();
    }
    for (size_t i = 0; i < FIBER_THREADS_MAX; i++) /* a stack that overflows is found */
        mprotect(stacks + i * STACK_BYTES, (size_t)sysconf(_SC_PAGESIZE), PROT_NONE);
}

runner::~runner()
{
    munmap(stacks, STACK_BYTES * FIBER_THREADS_MAX);
}

runner &self()
{
    static thread_local runner *r;
    static thread_local struct owner {
        ~owner()
        {
            delete r;
        }
    } owner;

    (void)owner;
    if (!r)
        r = new runner();
    return *r;
}

void fail(runner &r, const char *what, const site &at)
{
    if (!r.has_failed)
        snprintf(r.error, sizeof(r.error), "%s (%s:%d)", what, at.file ? at.file : "?",
                 at.line);
    r.has_failed = true;
}

void pause(runner &r, enum state state)
{
    r.current->state = state;
    context_switch(&r.current->ctx, &r.main, state == DONE);
}

void thread_main()
{
    runner &r = self();

#if FIBER_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &r.main.stack_bottom, &r.main.stack_bytes);
#endif
    (*r.body)();
    if (!r.current->copies.empty())
        fail(r, "a thread ends while copies of it are on their way", r.current->at);
    pause(r, DONE);
}

/* ---- shared memory ---- */

char *shared_take(runner &r, size_t n_bytes)
{
    size_t padded = (n_bytes + 15) / 16 * 16;
    char *start = r.shared + r.shared_used, *data = start + GUARD_BYTES;

    if (r.shared_used + padded + 2 * GUARD_BYTES > sizeof(r.shared))
        return nullptr;
    memset(start, GUARD_VALUE, padded + 2 * GUARD_BYTES);
    memset(data, 0xff, n_bytes);
#if FIBER_ASAN
    __asan_poison_memory_region(start, GUARD_BYTES);
    __asan_poison_memory_region(data + n_bytes, padded - n_bytes + GUARD_BYTES);
#endif
    r.shared_used += padded + 2 * GUARD_BYTES;
    return data;
}

void shared_add(runner &r, const char *file, int line, size_t n_bytes)
{
    shared_array array = {file, line, nullptr, n_bytes};

    if (r.n_arrays < ARRAYS_MAX)
        array.data = shared_take(r, n_bytes);
    if (!array.data) {
        fail(r, "too much shared memory", {file, line, 0});
        pause(r, DONE);
    }
    r.arrays[r.n_arrays++] = array;
}

bool is_guard(const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)bytes[i] != GUARD_VALUE)
            return false;
    return true;
}

void shared_check(runner &r)
{
#if FIBER_ASAN
    __asan_unpoison_memory_region(r.shared, sizeof(r.shared));
#endif
    for (int i = 0; i < r.n_arrays; i++) {
        const shared_array &a = r.arrays[i];

        if (!is_guard(a.data - GUARD_BYTES, GUARD_BYTES) ||
            !is_guard(a.data + a.n_bytes, GUARD_BYTES))
            fail(r, "written beside shared memory", {a.file, a.line, 0});
    }
    r.shared_used = 0;
    r.n_arrays = 0;
}

/* ---- order ---- */

/* Which of n comes i-th; for n a power of two or not, each exactly once. */
int nth(fiber_order order, int i, int n)
{
    static const int primes[] = {7, 11, 13, 17}; /* no n up to 1,024 has all of them */
    const int *step = primes;

    if (order == FIBER_REVERSE)
        return n - 1 - i;
    if (order == FIBER_FORWARD)
        return i;
    while (n % *step == 0)
        step++;
    return (int)(((int64_t)i * *step + 3) % n);
}

/* Lets the warp's lanes meet when all in the mask have come. */
void warp_release(runner &r, int first, int n_lanes)
{
    const site *at = nullptr;
    unsigned come = 0;

    for (int i = 0; i < n_lanes; i++) {
        thread &t = r.threads[first + i];

        if (t.state != AT_WARP)
            continue;
        if (at && !same_site(*at, t.at))
            return fail(r, "lanes of a warp wait at different places", t.at);
        at = &t.at;
        come |= 1U << i;
    }
    if (!at)
        return;
    if (come != at->mask)
        return fail(r, "not all lanes of the mask reach a shuffle", *at);
    r.warps[first / FIBER_WARP].n_meetings++;
    for (int i = 0; i < n_lanes; i++)
        if (r.threads[first + i].state == AT_WARP)
            r.threads[first + i].state = READY;
}

/* Runs a warp until its lanes have ended or wait at a barrier. */
void warp_run(runner &r, int w)
{
    int first = w * FIBER_WARP;
    int n = r.n_threads - first < FIBER_WARP ? r.n_threads - first : FIBER_WARP;

    for (bool has_run = true; has_run && !r.has_failed;) {
        has_run = false;
        for (int i = 0; i < n && !r.has_failed; i++) {
            thread &t = r.threads[first + nth(r.order, i, n)];

            if (t.state != READY)
                continue;
            has_run = true;
            r.current = &t;
            context_switch(&r.main, &t.ctx, false);
        }
        if (!r.has_failed)
            warp_release(r, first, n);
    }
}

/* True when the block goes on behind a barrier. */
bool barrier_release(runner &r)
{
    int n_done = 0;
    const site *at = nullptr;

    for (int i = 0; i < r.n_threads; i++) {
        thread &t = r.threads[i];

        n_done += t.state == DONE;
        if (t.state == DONE)
            continue;
        if (at && !same_site(*at, t.at))
            fail(r, "threads of a block wait at different barriers", t.at);
        at = &t.at;
    }
    if (at && n_done > 0)
        fail(r, "not all threads of the block reach a barrier", *at);
    if (r.has_failed || !at)
        return false;
    for (int i = 0; i < r.n_threads; i++)
        r.threads[i].state = READY;
    return true;
}

void threads_start(runner &r, const fiber_place &place)
{
    fiber_dim b = place.block_dim;

    for (int i = 0; i < r.n_threads; i++) {
        thread &t = r.threads[i];
        unsigned n = (unsigned)i;
        char *stack = r.stacks + (size_t)i * STACK_BYTES;

        t.place = place;
        t.place.thread = fiber_dim(n % b.x, n / b.x % b.y, n / b.x / b.y);
        t.index = i;
        t.state = READY;
        t.at = {};
        t.copies.clear();
        t.group = 0;
        t.ctx.fake_stack = nullptr;
        t.ctx.stack_bottom = stack;
        t.ctx.stack_bytes = STACK_BYTES;
        context_start(&t.ctx, stack, thread_main);
    }
}

void block_run(runner &r, const fiber_place &place, size_t shared_bytes)
{
    int n_warps = (r.n_threads + FIBER_WARP - 1) / FIBER_WARP;

    r.n_arrays = 0;
    r.shared_used = 0;
    r.static_bytes = 0;
    shared_add(r, "dynamic shared memory", 0, shared_bytes);
    threads_start(r, place);
    do
        for (int i = 0; i < n_warps && !r.has_failed; i++)
            warp_run(r, nth(r.order, i, n_warps));
    while (!r.has_failed && barrier_release(r));
    shared_check(r);
}

} /* namespace */

const char *fiber_run(fiber_dim grid, fiber_dim block, size_t shared_bytes,
                      fiber_order order, const std::function<void()> &body)
{
    runner &r = self();
    int64_t n_blocks = (int64_t)grid.x * grid.y * grid.z;

    r.n_threads = (int)(block.x * block.y * block.z);
    r.order = order;
    r.body = &body;
    r.has_failed = false;
    if (r.n_threads < 1 || r.n_threads > FIBER_THREADS_MAX ||
        shared_bytes > FIBER_SHARED_MAX) {
        fail(r, "no such block", {});
        return r.error;
    }
    for (int64_t i = 0; i < n_blocks && !r.has_failed; i++) {
        int64_t n = order == FIBER_FORWARD ? i : n_blocks - 1 - i;
        fiber_place place;

        place.grid_dim = grid;
        place.block_dim = block;
        place.block = fiber_dim((unsigned)(n % grid.x), (unsigned)(n / grid.x % grid.y),
                                (unsigned)(n / grid.x / grid.y));
        block_run(r, place, shared_bytes);
    }
    return r.has_failed ? r.error : nullptr;
}

const fiber_place &fiber_here()
{
    return self().current->place;
}

int fiber_lane()
{
    return self().current->index % FIBER_WARP;
}

void *fiber_dynamic_shared()
{
    return self().arrays[0].data;
}

void *fiber_static_shared(const char *file, int line, size_t n_bytes)
{
    runner &r = self();

    for (int i = 1; i < r.n_arrays; i++) {
        const shared_array &a = r.arrays[i];

        if (a.line == line && a.n_bytes == n_bytes && strcmp(a.file, file) == 0)
            return a.data;
    }
    r.static_bytes += n_bytes;
    if (r.static_bytes > FIBER_STATIC_SHARED_MAX)
        fiber_fail("too much shared memory", file, line);
    shared_add(r, file, line, n_bytes);
    return r.arrays[r.n_arrays - 1].data;
}

void fiber_barrier(const char *file, int line)
{
    runner &r = self();

    r.current->at = {file, line, 0};
    pause(r, AT_BARRIER);
}

const uint64_t *fiber_meet_warp(unsigned mask, uint64_t value, const char *file, int line)
{
    runner &r = self();
    warp &w = r.warps[r.current->index / FIBER_WARP];
    unsigned meeting = w.n_meetings % 2;

    w.slots[meeting][r.current->index % FIBER_WARP] = value;
    r.current->at = {file, line, mask};
    pause(r, AT_WARP);
    return w.slots[meeting];
}

void fiber_fail(const char *what, const char *file, int line)
{
    fail(self(), what, {file, line, 0});
    pause(self(), DONE);
}

void fiber_do_together(void *out, size_t n_out, const void *in, size_t n_in,
                       void (*work)(fiber_together &all), const char *file, int line)
{
    runner &r = self();
    warp &w = r.warps[r.current->index / FIBER_WARP];
    int lane = r.current->index % FIBER_WARP;
    fiber_together &all = w.together[w.n_meetings % 2];

    memcpy(all.in[lane], in, n_in);
    all.is_done = false;
    all.wrong = nullptr;
    r.current->at = {file, line, 0xffffffffU};
    pause(r, AT_WARP);
    if (!all.is_done)
        work(all);
    all.is_done = true;
    if (all.wrong)
        fiber_fail(all.wrong, file, line);
    memcpy(out, all.out[lane], n_out);
}

/* ---- asynchronous copies ---- */

bool fiber_is_shared(const void *data, size_t n_bytes)
{
    runner &r = self();

    for (int i = 0; i < r.n_arrays; i++) {
        const shared_array &a = r.arrays[i];

        if ((const char *)data >= a.data &&
            (const char *)data + n_bytes <= a.data + a.n_bytes)
            return true;
    }
    return false;
}

static void copy_land(const copy &c)
{
    if (c.src)
        memcpy(c.dst, c.src, 16);
    else
        memset(c.dst, 0, 16);
}

void fiber_copy_async(void *dst, const void *src, const char *file, int line)
{
    runner &r = self();
    thread &t = *r.current;
    copy c = {dst, src, t.group};

    if (!fiber_is_shared(dst, 16))
        fiber_fail("an asynchronous copy does not go to shared memory", file, line);
    if ((uintptr_t)dst % 16 != 0 || (uintptr_t)src % 16 != 0)
        fiber_fail("an asynchronous copy is not aligned to 16 bytes", file, line);
    t.at = {file, line, 0};
    t.copies.push_back(c);
    /* what lands at once lands again when it is waited for, as if it had taken long */
    if (r.order == FIBER_REVERSE || (r.order == FIBER_SCRAMBLED && r.n_copies++ % 3 == 0))
        copy_land(c);
}

void fiber_copy_commit()
{
    self().current->group++;
}

void fiber_copy_wait(unsigned n_groups_left)
{
    thread &t = *self().current;
    size_t n = 0;

    while (n < t.copies.size() && t.copies[n].group + n_groups_left < t.group)
        copy_land(t.copies[n++]);
    t.copies.erase(t.copies.begin(), t.copies.begin() + (ptrdiff_t)n);
}
