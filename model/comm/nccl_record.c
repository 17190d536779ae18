/* Collectives that the stream records, to be launched with a graph as often as wanted.
 *
 * While the stream records nobody may ask how far it is, so they have no marks: each lies
 * between two events that are part of the graph and are recorded anew by every launch
 * (cudaEventRecordExternal), to learn how long it takes. A launch has one mark for all of a
 * group's, and so one number range. Recording counts none; a launch counts all at once.
 * Events may be made while a stream records (NCCL makes some then, src/misc/strongstream.cc),
 * and where a recording is spoilt already recording the event says so, before NCCL is asked:
 * it would take the stream for one that does not record.
 */
#include "model/comm/nccl_group.h"

#include <stdlib.h>

#define PIECES_FIRST 16

struct piece {
    struct nccl_group *group;
    cudaEvent_t begin, end;
    size_t n_bytes;
    int64_t ns; /* as last read */
};

struct nccl_stretch {
    struct nccl_set *set;
    struct piece *pieces;
    int n_pieces, n_room;
    struct nccl_mark asked; /* the newest, for messages */
    bool has_failed;
};

static struct piece *newest(struct nccl_stretch *stretch)
{
    return &stretch->pieces[stretch->n_pieces - 1];
}

int nccl_record_begin(struct nccl_set *set, struct err *err)
{
    struct nccl_stretch *stretch = calloc(1, sizeof(*stretch));

    if (!stretch)
        return err_set(err, ERR_NOMEM, "cannot allocate a stretch of collectives");
    stretch->set = set;
    set->recording = stretch;
    return 0;
}

/* One more piece, with its events. */
static int add_piece(struct nccl_stretch *stretch, struct nccl_group *group,
                     struct err *err)
{
    struct piece *piece;

    if (stretch->n_pieces == stretch->n_room) {
        int n_room = stretch->n_room ? 2 * stretch->n_room : PIECES_FIRST;
        struct piece *more =
            realloc(stretch->pieces, (size_t)n_room * sizeof(*stretch->pieces));

        if (!more)
            return err_set(err, ERR_NOMEM, "cannot allocate %d recorded collectives",
                           n_room);
        stretch->pieces = more;
        stretch->n_room = n_room;
    }
    piece = &stretch->pieces[stretch->n_pieces++];
    *piece = (struct piece){.group = group};
    if (cudaEventCreateWithFlags(&piece->begin, cudaEventDefault) == cudaSuccess &&
        cudaEventCreateWithFlags(&piece->end, cudaEventDefault) == cudaSuccess)
        return 0;
    return err_set(err, ERR_IO, "cannot make events for group '%s'", group->args.name);
}

static int record_event(cudaEvent_t event, const struct nccl_group *group,
                        struct err *err)
{
    if (cudaEventRecordWithFlags(event, group->set->stream, cudaEventRecordExternal) ==
        cudaSuccess)
        return 0;
    return err_set(err, ERR_IO, "group '%s': cannot record an event", group->args.name);
}

/* So many of the group's collectives are asked for; the number of the last. */
static uint64_t count_on(const struct nccl_group *group, int64_t n_more)
{
    if (!group->base.slot) /* the group has ended */
        return 0;
    return group->args.count(group->args.group, n_more);
}

int nccl_record_refuse(const struct nccl_group *group, const char *what, struct err *err)
{
    count_on(group, -1);
    return err_set(err, ERR_STATE, "group '%s': no recording of %s", group->args.name,
                   what);
}

int nccl_record_piece(struct nccl_group *group, struct nccl_mark **out, struct err *err)
{
    struct nccl_set *set = group->set;
    struct nccl_stretch *stretch = set->recording;

    if (set->recorded && set->recorded != group)
        return nccl_record_refuse(group, "a second group's collectives", err);
    set->recorded = group;
    if (add_piece(stretch, group, err) < 0)
        return -1;
    stretch->asked = (struct nccl_mark){.has_begun = true};
    *out = &stretch->asked;
    return record_event(newest(stretch)->begin, group, err);
}

int nccl_record_piece_end(struct nccl_group *group, struct err *err)
{
    struct nccl_stretch *stretch = group->set->recording;

    newest(stretch)->n_bytes = stretch->asked.n_bytes;
    return record_event(newest(stretch)->end, group, err);
}

void nccl_record_fail(struct nccl_stretch *recording)
{
    recording->has_failed = true;
}

int nccl_record_end(struct nccl_set *set, struct nccl_stretch **out)
{
    struct nccl_stretch *stretch = set->recording;

    *out = NULL;
    if (!stretch) /* it did not begin */
        return 0;
    set->recording = NULL;
    for (int i = 0; i < stretch->n_pieces; i++)
        count_on(stretch->pieces[i].group, -1);
    if (stretch->has_failed)
        nccl_abort_all(set);
    if (stretch->has_failed || stretch->n_pieces == 0) {
        int rc = stretch->has_failed ? -1 : 0;

        nccl_stretch_free(stretch);
        return rc;
    }
    *out = stretch;
    return 0;
}

/* ---- launching ---- */

int64_t nccl_stretch_count(const struct nccl_stretch *stretch,
                           const struct nccl_group *group)
{
    int64_t n = 0;

    for (int i = 0; i < stretch->n_pieces; i++)
        n += stretch->pieces[i].group == group;
    return n;
}

static size_t bytes_of(const struct nccl_stretch *stretch, const struct nccl_group *group)
{
    size_t n_bytes = 0;

    for (int i = 0; i < stretch->n_pieces; i++)
        if (stretch->pieces[i].group == group)
            n_bytes += stretch->pieces[i].n_bytes;
    return n_bytes;
}

int nccl_launch_begin(struct nccl_stretch *stretch, struct err *err)
{
    struct nccl_set *set = stretch->set;

    for (int i = 0; i < set->n; i++) {
        struct nccl_group *group = set->groups[i];
        int64_t n = nccl_stretch_count(stretch, group);
        struct nccl_mark *mark;

        if (n == 0)
            continue;
        if (nccl_check_open(group, err) < 0 ||
            nccl_mark_begin(group, &mark, set->stream, err) < 0)
            return -1;
        mark->what = "recorded collective";
        mark->number = count_on(group, n);
        mark->n_bytes = bytes_of(stretch, group);
        mark->stretch = mark->is_counted ? stretch : NULL;
    }
    return 0;
}

int nccl_launch_end(struct nccl_stretch *stretch, struct err *err)
{
    struct nccl_set *set = stretch->set;

    for (int i = 0; i < set->n; i++) {
        struct nccl_group *group = set->groups[i];

        if (nccl_stretch_count(stretch, group) > 0 &&
            nccl_mark_end(group, nccl_newest_mark(group), set->stream, err) < 0)
            return -1;
    }
    return 0;
}

int64_t nccl_stretch_ns(struct nccl_stretch *stretch, const struct nccl_group *group)
{
    int64_t ns = 0;

    for (int i = 0; i < stretch->n_pieces; i++) {
        struct piece *piece = &stretch->pieces[i];
        float ms = 0;

        if (piece->group != group)
            continue;
        /* one of a newer launch may be on its way, or its begin may be recorded already */
        if (cudaEventElapsedTime(&ms, piece->begin, piece->end) == cudaSuccess && ms >= 0)
            piece->ns = (int64_t)((double)ms * 1e6);
        else
            cudaGetLastError(); /* no error, but kept as one */
        ns += piece->ns;
    }
    return ns;
}

/* What is on its way is watched on, as if it were one collective. */
static void forget_marks(const struct nccl_stretch *stretch)
{
    for (int i = 0; i < stretch->set->n; i++)
        for (int m = 0; m < NCCL_MARKS; m++) {
            struct nccl_mark *mark = &stretch->set->groups[i]->marks[m];

            if (mark->stretch != stretch)
                continue;
            mark->stretch = NULL;
            mark->is_counted = false;
        }
}

void nccl_stretch_free(struct nccl_stretch *stretch)
{
    if (!stretch)
        return;
    forget_marks(stretch);
    for (int i = 0; i < stretch->n_pieces; i++) {
        if (stretch->pieces[i].begin)
            cudaEventDestroy(stretch->pieces[i].begin);
        if (stretch->pieces[i].end)
            cudaEventDestroy(stretch->pieces[i].end);
    }
    free(stretch->pieces);
    free(stretch);
}
