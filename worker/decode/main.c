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
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define NICENESS 5 /* the ranks that train go first */

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
#ifndef __SANITIZE_ADDRESS__ /* which reserves terabytes */
    if (setup->memory_bytes) {
        rlim_t limit = setup->memory_bytes + n_bytes;
        const struct rlimit space = {limit, limit};

        if (setrlimit(RLIMIT_AS, &space) < 0)
            return err_set(err, ERR_IO, "cannot limit the memory: %s", strerror(errno));
    }
#endif
    return 0;
}

static void decode(struct media_session *session, const struct decode_setup *setup,
                   uint8_t *memory, const struct decode_command *command,
                   struct decode_reply *reply)
{
    uint8_t *slot = memory + (size_t)command->slot * setup->slot_bytes;

    *reply = (struct decode_reply){.magic = DECODE_MAGIC, .ticket = command->ticket};
    if (fault_hit("decode.hang") || fault_hit("decode.crash"))
        reply->rc = err_set(&reply->err, ERR_IO, "a fault point made decoding fail");
    else
        reply->rc = media_session_frames(session, command->only_probe ? NULL : slot,
                                         setup->slot_bytes, &reply->info,
                                         &command->request, &setup->limits, &reply->err);
    if (reply->rc < 0 && reply->err.code == ERR_NOMEM)
        reply->err.code =
            ERR_LIMIT; /* the memory is ours by a limit, not the machine's */
    reply->finished_ms = clock_mono_ms();
}

/* Until the parent closes its end. */
static int serve(const struct decode_setup *setup, uint8_t *memory, struct err *err)
{
    struct media_session *session;
    struct decode_command command;
    struct decode_reply reply;
    ssize_t n;

    if (media_session_create(&session, err) < 0)
        return -1;
    while ((n = recv(DECODE_SOCKET_FD, &command, sizeof(command), 0)) ==
               sizeof(command) &&
           command.magic == DECODE_MAGIC && command.slot >= 0 &&
           command.slot < setup->n_slots) {
        decode(session, setup, memory, &command, &reply);
        if (send(DECODE_SOCKET_FD, &reply, sizeof(reply), MSG_NOSIGNAL) != sizeof(reply))
            break;
    }
    media_session_destroy(session);
    return n > 0 ? err_set(err, ERR_PEER, "a command that cannot be understood came") : 0;
}

int main(int argc, char **argv)
{
    struct decode_setup setup;
    uint8_t *memory = NULL;
    struct err err = {0};

    log_init("decode", LOG_INFO);
    if (argc != 2) {
        log_error("this program is started by vneva-rank and vneva-data only");
        return 2;
    }
    if (isolate(argv[1], &err) < 0 || receive_setup(&setup, &memory, &err) < 0 ||
        serve(&setup, memory, &err) < 0) {
        log_error("%s", err.text);
        return 5;
    }
    return 0;
}
