/* protocol.h - what the pool and a vneva-decode process say to each other
 *
 * One SOCK_SEQPACKET socket a process, one message a packet, both ends of one build, so
 * plain structs. First a setup, then commands; each command gets one reply, in order.
 * Frames go into slot `slot` of the shared memory file.
 * The parent trusts nothing that comes back: see process_check in process.c.
 */
#ifndef VNEVA_WORKER_DECODE_PROTOCOL_H
#define VNEVA_WORKER_DECODE_PROTOCOL_H

#include "dataprep/media/media.h"

#define DECODE_MAGIC 0x6465636fu

/* Descriptors of a vneva-decode process. */
#define DECODE_SOCKET_FD 3
#define DECODE_MEMORY_FD 4

struct decode_setup {
    uint32_t magic;
    int32_t n_slots;
    uint64_t slot_bytes;
    uint64_t
        memory_bytes; /* address space beside the shared memory and what a GPU's driver
                              reserves when it starts; 0: no limit */
    enum media_decode decode;
    int32_t device; /* for decode but _CPU */
    struct media_limits limits;
};

struct decode_command {
    uint32_t magic;
    int32_t slot;
    int64_t ticket;
    bool only_probe;
    bool on_cpu; /* whatever the setup says */
    struct frame_request request;
};

struct decode_reply {
    uint32_t magic;
    int32_t rc;
    int64_t ticket;
    int64_t finished_ms; /* clock_mono_ms of this machine */
    struct media_info info;
    struct err err;
};

#endif
