/* vneva-decode: decodes what its parent asks for, one request after another, into shared
 * memory. Started by worker/decode's pool only; see protocol.h. */
#define _GNU_SOURCE /* close_range, RLIMIT_AS */
#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "dataprep/media/session.h"
#include "worker/decode/protocol.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define NICENESS 5 /* the ranks that train go first */

struct decoder {
    struct decode_setup setup;
    uint8_t *memory; /* of the slots */
    struct media_session *session;
    bool is_gpu_tried; /* opened, or it could not be */
};

/* Ends with its parent, has nothing else of its parent's open, dumps no core. */
static int isolate(const char *parent, struct err *err)
{
    const struct rlimit none = {0, 0};

    signal(SIGINT, SIG_IGN); /* the parent decides when we end */
    signal(SIGTERM, SIG_IGN);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ||
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || setrlimit(RLIMIT_CORE, &none) < 0)
        return err_set(err, ERR_IO, "cannot isolate the process: %s", strerror(errno));
    if ((long)getppid() != strtol(parent, NULL, 10)) /* it died before the prctl */
        return err_set(err, ERR_STATE, "the parent is gone");
    close_range(DECODE_MEMORY_FD + 1, ~0U, 0);
    if (setpriority(PRIO_PROCESS, 0, NICENESS) < 0)
        log_warn("cannot lower the priority: %s", strerror(errno));
    return 0;
}

/* CUDA reserves many times the address space that it uses; with a GPU the limit can be
 * raised by what its driver took (see open_gpu), so it is not a hard one. */
static int limit_memory(const struct decode_setup *setup, uint64_t taken_bytes,
                        struct err *err)
{
#ifndef __SANITIZE_ADDRESS__ /* which reserves terabytes */
    rlim_t limit =
        taken_bytes + setup->memory_bytes + (uint64_t)setup->n_slots * setup->slot_bytes;
    const struct rlimit space = {
        limit, setup->decode == MEDIA_DECODE_CPU ? limit : RLIM_INFINITY};

    if (setup->memory_bytes && setrlimit(RLIMIT_AS, &space) < 0)
        return err_set(err, ERR_IO, "cannot limit the memory: %s", strerror(errno));
#else
    (void)setup;
    (void)taken_bytes;
    (void)err;
#endif
    return 0;
}

static int receive_setup(struct decode_setup *setup, uint8_t **memory, struct err *err)
{
    size_t n_bytes;

    if (recv(DECODE_SOCKET_FD, setup, sizeof(*setup), 0) != sizeof(*setup) ||
        setup->magic != DECODE_MAGIC)
        return err_set(err, ERR_PEER, "no setup came; this program is started by a rank");
    n_bytes = (size_t)setup->n_slots * setup->slot_bytes;
    *memory =
        mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, DECODE_MEMORY_FD, 0);
    if (*memory == MAP_FAILED)
        return err_set(err, ERR_IO, "cannot map the frames' memory: %s", strerror(errno));
    return limit_memory(setup, 0, err);
}

/* Address space of this process, the first number of /proc/self/statm, in pages; 0: not
 * known. */
static uint64_t space_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    char line[64] = "";

    if (!file)
        return 0;
    if (!fgets(line, sizeof(line), file))
        line[0] = '\0';
    fclose(file);
    return strtoull(line, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* With the first video, so that who looks at pictures only never starts a driver. Files may
 * then use as much memory as before, beside what the driver took. */
static void open_gpu(struct decoder *decoder)
{
    const struct decode_setup *setup = &decoder->setup;
    const struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
    uint64_t before = space_bytes(), after;
    struct err why = {0};

    decoder->is_gpu_tried = true;
    if (setup->memory_bytes && setrlimit(RLIMIT_AS, &none) < 0)
        log_warn("cannot lift the limit of memory: %s", strerror(errno));
    if (media_session_open_gpu(decoder->session, setup->decode, setup->device, &why) < 0)
        log_write(setup->decode == MEDIA_DECODE_CUDA ? LOG_WARN : LOG_INFO,
                  "videos are decoded on the CPU: %s", why.text);
    after = space_bytes();
    if (limit_memory(setup, after > before ? after - before : 0, &why) < 0)
        log_warn("%s", why.text);
}

static bool wants_gpu(const struct decoder *decoder, const struct decode_command *command)
{
    return decoder->setup.decode != MEDIA_DECODE_CPU && !command->on_cpu &&
           !command->only_probe && command->request.media.kind == MEDIA_VIDEO;
}

static int decode_frames(struct decoder *decoder, const struct decode_command *command,
                         struct decode_reply *reply)
{
    const struct decode_setup *setup = &decoder->setup;
    uint8_t *slot = decoder->memory + (size_t)command->slot * setup->slot_bytes;
    bool is_for_gpu = wants_gpu(decoder, command);
    const char *note;
    int rc;

    if (is_for_gpu && !decoder->is_gpu_tried)
        open_gpu(decoder);
    media_session_allow_gpu(decoder->session, is_for_gpu);
    rc = media_session_frames(decoder->session, command->only_probe ? NULL : slot,
                              setup->slot_bytes, &reply->info, &command->request,
                              &setup->limits, &reply->err);
    while ((note = media_session_take_note(decoder->session)))
        log_info("%s", note);
    return rc;
}

static void decode(struct decoder *decoder, const struct decode_command *command,
                   struct decode_reply *reply)
{
    *reply = (struct decode_reply){.magic = DECODE_MAGIC, .ticket = command->ticket};
    if (fault_hit("decode.hang") || fault_hit("decode.crash"))
        reply->rc = err_set(&reply->err, ERR_IO, "a fault point made decoding fail");
    else
        reply->rc = decode_frames(decoder, command, reply);
    if (reply->rc < 0 && reply->err.code == ERR_NOMEM)
        reply->err.code =
            ERR_LIMIT; /* the memory is ours by a limit, not the machine's */
    reply->finished_ms = clock_mono_ms();
}

/* Until the parent closes its end. */
static int serve(struct decoder *decoder, struct err *err)
{
    struct decode_command command;
    struct decode_reply reply;
    ssize_t n;

    if (media_session_create(&decoder->session, err) < 0)
        return -1;
    while ((n = recv(DECODE_SOCKET_FD, &command, sizeof(command), 0)) ==
               sizeof(command) &&
           command.magic == DECODE_MAGIC && command.slot >= 0 &&
           command.slot < decoder->setup.n_slots) {
        decode(decoder, &command, &reply);
        if (send(DECODE_SOCKET_FD, &reply, sizeof(reply), MSG_NOSIGNAL) != sizeof(reply))
            break;
    }
    media_session_destroy(decoder->session);
    return n > 0 ? err_set(err, ERR_PEER, "a command that cannot be understood came") : 0;
}

int main(int argc, char **argv)
{
    struct decoder decoder = {.memory = NULL};
    struct err err = {0};

    log_init("decode", LOG_INFO);
    if (argc != 2 || argv[1][0] == '-') {
        log_error("this program is started by vneva-rank and vneva-data only");
        return 2;
    }
    if (isolate(argv[1], &err) < 0 ||
        receive_setup(&decoder.setup, &decoder.memory, &err) < 0 ||
        serve(&decoder, &err) < 0) {
        log_error("%s", err.text);
        return 5;
    }
    return 0;
}
