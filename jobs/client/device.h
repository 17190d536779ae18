/* device.h - what a rank of a job may take of memory, as far as the client can know */
#ifndef VNEVA_JOBS_CLIENT_DEVICE_H
#define VNEVA_JOBS_CLIENT_DEVICE_H

#include "jobs/client/client.h"
#include "jobs/spec/spec.h"

#define DEVICE_WHERE_MAX 128

struct device {
    bool is_gpu;
    uint64_t memory_bytes;        /* 0: not known */
    char where[DEVICE_WHERE_MAX]; /* who says so: "--memory", "agent on 'n1'" */
};

/* From --memory, else from the agents that are up: of the kind the job asks for, the one
 * whose devices have most. Nobody answers, or no agent says: it is not known. ERR_INVALID:
 * --memory is no size. */
int device_find(struct device *out, struct client *client, const struct args *args,
                const struct spec *spec, struct err *err);

#endif
