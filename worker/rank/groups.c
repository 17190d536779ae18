#include "worker/rank/groups.h"

#include "common/base/hash.h"
#include "common/net/mesh.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENDPOINT_MAX 512

/* One group's link: its ranks' numbers in the attempt. */
struct group_link {
    struct groups *groups;
    int first, stride; /* rank g of the group is rank first + g * stride of the attempt */
};

struct groups {
    struct layout layout;
    char endpoint[ENDPOINT_MAX]; /* "HOST" or "HOST ENDPOINT" */
    size_t host_bytes;           /* of the host's name in endpoint */
    struct net_mesh *mesh;       /* NULL: alone */
    struct group_link links[2];  /* tensor, data */
    struct comm *tensor, *data;
    int n_on_host;
};

int layout_make(struct layout *out, int64_t n_ranks, int64_t rank,
                int64_t tensor_parallel, struct err *err)
{
    if (n_ranks < 1 || n_ranks > GROUPS_RANKS_MAX || rank < 0 || rank >= n_ranks)
        return err_set(err, ERR_INVALID,
                       "rank %" PRId64 " of %" PRId64 " is not possible", rank, n_ranks);
    if (tensor_parallel < 1 || n_ranks % tensor_parallel != 0)
        return err_set(err, ERR_INVALID,
                       "%" PRId64 " ranks cannot be divided into groups of "
                       "model.tensor_model_parallel_size %" PRId64,
                       n_ranks, tensor_parallel);
    *out = (struct layout){
        .n_ranks = (int)n_ranks,
        .rank = (int)rank,
        .n_tensor = (int)tensor_parallel,
        .tensor_rank = (int)(rank % tensor_parallel),
        .n_data = (int)(n_ranks / tensor_parallel),
        .data_rank = (int)(rank / tensor_parallel),
    };
    return 0;
}

int layout_rank(const struct layout *layout, int data_rank, int tensor_rank)
{
    return data_rank * layout->n_tensor + tensor_rank;
}

int groups_open(struct groups **out, const struct layout *layout, const char *host,
                const char *address, struct err *err)
{
    struct groups *groups = calloc(1, sizeof(*groups));
    int n;

    if (!groups)
        return err_set(err, ERR_NOMEM, "cannot allocate the groups of ranks");
    groups->layout = *layout;
    groups->n_on_host = 1;
    groups->host_bytes = strlen(host);
    if (layout->n_ranks > 1 && net_mesh_listen(&groups->mesh, address, err) < 0)
        goto fail;
    n = snprintf(groups->endpoint, sizeof(groups->endpoint), "%s%s%s", host,
                 groups->mesh ? " " : "",
                 groups->mesh ? net_mesh_endpoint(groups->mesh) : "");
    if (n < 0 || (size_t)n >= sizeof(groups->endpoint) || strchr(host, ' ')) {
        err_set(err, ERR_INVALID, "'%s' cannot be the name of a host", host);
        goto fail;
    }
    *out = groups;
    return 0;
fail:
    groups_close(groups);
    return -1;
}

const char *groups_endpoint(const struct groups *groups)
{
    return groups->endpoint;
}

void groups_close(struct groups *groups)
{
    if (!groups)
        return;
    comm_destroy(groups->tensor);
    comm_destroy(groups->data);
    net_mesh_close(groups->mesh);
    free(groups);
}

struct comm *groups_tensor(struct groups *groups)
{
    return groups->tensor;
}

struct comm *groups_data(struct groups *groups)
{
    return groups->data;
}

int groups_n_on_host(const struct groups *groups)
{
    return groups->n_on_host;
}

/* ---- connecting ---- */

static int link_post(void *state, int to_rank, const void *bytes, size_t n_bytes,
                     struct err *err)
{
    const struct group_link *link = state;

    return net_mesh_post(link->groups->mesh, link->first + to_rank * link->stride, bytes,
                         n_bytes, err);
}

static int link_flush(void *state, int64_t timeout_ms, struct err *err)
{
    const struct group_link *link = state;

    return net_mesh_flush(link->groups->mesh, timeout_ms, err);
}

static int link_recv(void *state, int from_rank, void *bytes, size_t n_bytes,
                     int64_t timeout_ms, struct err *err)
{
    const struct group_link *link = state;

    return net_mesh_recv(link->groups->mesh, link->first + from_rank * link->stride,
                         bytes, n_bytes, timeout_ms, err);
}

static bool is_on_host(const struct groups *groups, const char *endpoint)
{
    return strncmp(endpoint, groups->endpoint, groups->host_bytes) == 0 &&
           (endpoint[groups->host_bytes] == ' ' || !endpoint[groups->host_bytes]);
}

static int host_bytes(const char *endpoint)
{
    return (int)strcspn(endpoint, " ");
}

/* Where one of two hosts listens on loopback and the other does not, they do not meet. */
static int check_address(const struct groups *groups, const char *theirs, struct err *err)
{
    const char *mine = groups->endpoint, *hidden, *other;
    bool is_hidden = net_mesh_is_loopback(theirs + host_bytes(theirs) + 1);

    if (is_on_host(groups, theirs) ||
        is_hidden == net_mesh_is_loopback(net_mesh_endpoint(groups->mesh)))
        return 0;
    hidden = is_hidden ? theirs : mine;
    other = is_hidden ? mine : theirs;
    return err_set(
        err, ERR_INVALID,
        "ranks on host '%.*s' listen at '%s', where those on '%.*s' do not reach "
        "them; start the agent of the former with --address, or connect it to "
        "the coordinator's tcp endpoint",
        host_bytes(hidden), hidden, hidden + host_bytes(hidden) + 1, host_bytes(other),
        other);
}

static int mesh_connect(struct groups *groups, const struct json *endpoints,
                        const struct wire_bytes *secret_bytes, struct err *err)
{
    const char *parts[GROUPS_RANKS_MAX];
    struct net_secret secret;
    int rc;

    for (int i = 0; i < groups->layout.n_ranks; i++) {
        const char *text = json_string(json_at(endpoints, (size_t)i));
        const char *space = strchr(text, ' ');

        if (!space)
            return err_set(err, ERR_PEER, "rank %d does not say where it listens", i);
        parts[i] = space + 1;
        if (check_address(groups, text, err) < 0)
            return -1;
    }
    if (net_secret_take(&secret, secret_bytes, err) < 0)
        return -1;
    rc = net_mesh_connect(groups->mesh, groups->layout.rank, groups->layout.n_ranks,
                          parts, &secret, GROUPS_MEET_MS, err);
    net_secret_forget(&secret);
    return rc;
}

/* Names the shared memory of a group: of this attempt and, for the endpoints have ports in
 * them, not of one with the same numbers in another life of the same folder. */
static void name_segment(char out[64], const char *name, int first,
                         const struct json *endpoints, const char *unique)
{
    uint64_t hash = hash64(unique, strlen(unique), (uint64_t)first);

    for (size_t i = 0; i < json_count(endpoints); i++) {
        const char *endpoint = json_string(json_at(endpoints, i));

        hash = hash64(endpoint, strlen(endpoint), hash);
    }
    snprintf(out, 64, "/vneva-%016" PRIx64, hash64(name, strlen(name), hash));
}

/* One group: solo, shared memory or ring. */
static int group_connect(struct comm **out, struct groups *groups, const char *name,
                         struct group_link *link, int rank, int n_ranks,
                         const struct json *endpoints, const char *unique,
                         struct err *err)
{
    struct comm_link comm_link = {link, link_post, link_flush, link_recv};
    char segment[64];
    bool is_one_host = true;

    if (n_ranks == 1)
        return comm_create_solo(out, name, err);
    link->groups = groups;
    for (int i = 0; i < n_ranks; i++) {
        size_t peer = (size_t)link->first + (size_t)i * (size_t)link->stride;

        is_one_host &= is_on_host(groups, json_string(json_at(endpoints, peer)));
    }
    if (!is_one_host)
        return comm_create_ring(out, name, &comm_link, rank, n_ranks, GROUPS_TIMEOUT_MS,
                                err);
    name_segment(segment, name, link->first, endpoints, unique);
    return comm_create_shm(out, name, segment, rank, n_ranks, GROUPS_SLOT_BYTES,
                           GROUPS_TIMEOUT_MS, err);
}

int groups_connect(struct groups *groups, const struct json *endpoints,
                   const char *unique, const struct wire_bytes *secret, struct err *err)
{
    const struct layout *layout = &groups->layout;

    groups->n_on_host = 0;
    for (int i = 0; i < layout->n_ranks; i++) {
        const char *endpoint = json_string(json_at(endpoints, (size_t)i));

        if (!endpoint)
            return err_set(err, ERR_PEER, "entry %d of the list of peers is no text", i);
        groups->n_on_host += is_on_host(groups, endpoint);
    }
    if (groups->n_on_host == layout->n_ranks) {
        net_mesh_close(groups->mesh); /* nobody is to call */
        groups->mesh = NULL;
    } else if (mesh_connect(groups, endpoints, secret, err) < 0) {
        return err_wrap(err, "cannot connect to the ranks of other hosts");
    }
    groups->links[0] = (struct group_link){
        .first = layout_rank(layout, layout->data_rank, 0), .stride = 1};
    groups->links[1] =
        (struct group_link){.first = layout->tensor_rank, .stride = layout->n_tensor};
    if (group_connect(&groups->tensor, groups, "tensor", &groups->links[0],
                      layout->tensor_rank, layout->n_tensor, endpoints, unique,
                      err) < 0 ||
        group_connect(&groups->data, groups, "data", &groups->links[1], layout->data_rank,
                      layout->n_data, endpoints, unique, err) < 0)
        return err_wrap(err, "cannot meet the other ranks");
    return 0;
}
