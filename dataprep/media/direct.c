/* A frame_service that decodes in this process, when it is waited for. */
#include "dataprep/media/media.h"

#include "dataprep/media/session.h"

#include <stdlib.h>
#include <string.h>

#define DIRECT_TICKETS_MAX 1024

struct direct_ticket {
    int64_t number; /* 0: free */
    struct frame_request request;
    bool only_probe;
    uint8_t *frames;
};

struct direct {
    struct media_limits limits;
    struct media_session *session;
    int64_t last_ticket;
    struct direct_ticket tickets[DIRECT_TICKETS_MAX];
};

static struct direct_ticket *direct_find(struct direct *direct, int64_t number)
{
    for (int i = 0; i < DIRECT_TICKETS_MAX; i++)
        if (direct->tickets[i].number == number)
            return &direct->tickets[i];
    return NULL;
}

static int direct_submit(void *state, const struct frame_request *request,
                         bool only_probe, int64_t *ticket, struct err *err)
{
    struct direct *direct = state;
    struct direct_ticket *free_ticket = direct_find(direct, 0);

    if (!free_ticket)
        return err_set(err, ERR_LIMIT, "more than %d requests wait for their release",
                       DIRECT_TICKETS_MAX);
    *free_ticket = (struct direct_ticket){
        .number = ++direct->last_ticket, .request = *request, .only_probe = only_probe};
    *ticket = free_ticket->number;
    return 0;
}

static int direct_decode(struct direct *direct, struct direct_ticket *ticket,
                         struct media_info *info, struct err *err)
{
    size_t frame_bytes =
        (size_t)(ticket->request.image_size * ticket->request.image_size * 3);

    if (media_session_frames(direct->session, NULL, 0, info, &ticket->request,
                             &direct->limits, err) < 0)
        return -1;
    if (ticket->only_probe)
        return 0;
    ticket->frames = malloc((size_t)info->n_frames * frame_bytes);
    if (!ticket->frames)
        return err_set(err, ERR_NOMEM, "cannot allocate %lld frames",
                       (long long)info->n_frames);
    return media_session_frames(direct->session, ticket->frames,
                                (size_t)info->n_frames * frame_bytes, info,
                                &ticket->request, &direct->limits, err);
}

static int direct_wait(void *state, int64_t number, const uint8_t **frames,
                       struct media_info *info, struct err *err)
{
    struct direct_ticket *ticket = number > 0 ? direct_find(state, number) : NULL;

    if (!ticket)
        return err_set(err, ERR_STATE, "no request has the ticket %lld",
                       (long long)number);
    free(ticket->frames);
    ticket->frames = NULL;
    if (direct_decode(state, ticket, info, err) < 0)
        return -1;
    if (frames)
        *frames = ticket->frames;
    return 0;
}

static void direct_release(void *state, int64_t number)
{
    struct direct_ticket *ticket = number > 0 ? direct_find(state, number) : NULL;

    if (!ticket)
        return;
    free(ticket->frames);
    *ticket = (struct direct_ticket){0};
}

int media_direct_service(struct frame_service *out, const struct media_limits *limits,
                         struct err *err)
{
    struct direct *direct = calloc(1, sizeof(*direct));

    if (!direct)
        return err_set(err, ERR_NOMEM, "cannot allocate a frame service");
    if (media_session_create(&direct->session, err) < 0) {
        free(direct);
        return -1;
    }
    direct->limits = *limits;
    *out = (struct frame_service){.state = direct,
                                  .submit = direct_submit,
                                  .wait = direct_wait,
                                  .release = direct_release};
    return 0;
}

void media_direct_service_close(struct frame_service *service)
{
    struct direct *direct = service->state;

    if (!direct)
        return;
    for (int i = 0; i < DIRECT_TICKETS_MAX; i++)
        free(direct->tickets[i].frames);
    media_session_destroy(direct->session);
    free(direct);
    *service = (struct frame_service){0};
}
