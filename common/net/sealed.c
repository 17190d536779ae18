#include "common/net/sealed.h"

#include <string.h>

#define KEY_BYTES crypto_secretstream_xchacha20poly1305_KEYBYTES
#define KEY_CONTEXT "vnevamsh" /* crypto_kdf's eight characters */

enum { SUBKEY_MAC = 1, SUBKEY_RECORDS = 2 };

static const uint8_t magic[8] = {'v', 'n', 'm', 'e', 's', 'h', '0', '2'};

/* What is authenticated of hello and reply is all before their MAC. */
#define HELLO_SAID_BYTES offsetof(struct sealed_hello, mac)
#define REPLY_SAID_BYTES offsetof(struct sealed_reply, mac)

static int denied(struct err *err)
{
    return err_set(err, ERR_DENIED, "it does not know the secret of this attempt");
}

static void subkey(uint8_t *out, const struct net_secret *secret, uint64_t id)
{
    _Static_assert(NET_SECRET_BYTES == crypto_kdf_KEYBYTES, "a secret is a master key");
    crypto_kdf_derive_from_key(out, KEY_BYTES, id, KEY_CONTEXT, secret->bytes);
}

/* The reply's MAC covers the hello it answers. */
static void mac(uint8_t *out, const struct net_secret *secret, const char *what,
                const struct sealed_hand *hand)
{
    bool is_reply = strcmp(what, "reply") == 0;
    crypto_auth_hmacsha512256_state state;
    uint8_t key[KEY_BYTES];

    subkey(key, secret, SUBKEY_MAC);
    crypto_auth_hmacsha512256_init(&state, key, sizeof(key));
    crypto_auth_hmacsha512256_update(&state, (const uint8_t *)what, strlen(what));
    crypto_auth_hmacsha512256_update(&state, (const uint8_t *)&hand->hello,
                                     HELLO_SAID_BYTES);
    if (is_reply)
        crypto_auth_hmacsha512256_update(&state, (const uint8_t *)&hand->reply,
                                         REPLY_SAID_BYTES);
    crypto_auth_hmacsha512256_final(&state, out);
    sodium_memzero(key, sizeof(key));
    sodium_memzero(&state, sizeof(state));
}

static bool is_mac(const uint8_t *said, const struct net_secret *secret, const char *what,
                   const struct sealed_hand *hand)
{
    uint8_t right[crypto_auth_BYTES];

    mac(right, secret, what, hand);
    return sodium_memcmp(said, right, sizeof(right)) == 0;
}

/* keys: of the records of who connects, then of who accepts. The header of the reply is
 * left out: it is made with these keys. */
static int derive(uint8_t keys[2 * KEY_BYTES], const struct sealed_hand *hand,
                  const uint8_t *theirs, const struct net_secret *secret, struct err *err)
{
    crypto_generichash_state state;
    uint8_t key[KEY_BYTES], shared[crypto_scalarmult_BYTES];

    if (crypto_scalarmult(shared, hand->key, theirs) < 0)
        return denied(err); /* a point that leaves no choice of the result */
    subkey(key, secret, SUBKEY_RECORDS);
    crypto_generichash_init(&state, key, sizeof(key), 2 * KEY_BYTES);
    crypto_generichash_update(&state, shared, sizeof(shared));
    crypto_generichash_update(&state, (const uint8_t *)&hand->hello, HELLO_SAID_BYTES);
    crypto_generichash_update(&state, hand->reply.key, sizeof(hand->reply.key));
    crypto_generichash_final(&state, keys, 2 * KEY_BYTES);
    sodium_memzero(key, sizeof(key));
    sodium_memzero(shared, sizeof(shared));
    sodium_memzero(&state, sizeof(state));
    return 0;
}

static void make_key(struct sealed_hand *hand, uint8_t *public_key)
{
    randombytes_buf(hand->key, sizeof(hand->key));
    crypto_scalarmult_base(public_key, hand->key);
}

/* ---- who connects ---- */

void sealed_hello(struct sealed_hand *hand, const struct net_secret *secret, int from,
                  int to, int n_ranks)
{
    memset(hand, 0, sizeof(*hand));
    memcpy(hand->hello.magic, magic, sizeof(magic));
    hand->hello.from = (uint32_t)from;
    hand->hello.to = (uint32_t)to;
    hand->hello.n_ranks = (uint32_t)n_ranks;
    make_key(hand, hand->hello.key);
    mac(hand->hello.mac, secret, "hello", hand);
}

int sealed_take_reply(struct sealed_hand *hand, const struct net_secret *secret,
                      struct sealed_begin *begin, struct err *err)
{
    uint8_t keys[2 * KEY_BYTES];

    if (!is_mac(hand->reply.mac, secret, "reply", hand))
        return denied(err);
    if (derive(keys, hand, hand->reply.key, secret, err) < 0)
        return -1;
    crypto_secretstream_xchacha20poly1305_init_push(&hand->sealed.out, begin->header,
                                                    keys);
    crypto_secretstream_xchacha20poly1305_init_pull(&hand->sealed.in, hand->reply.header,
                                                    keys + KEY_BYTES);
    sodium_memzero(keys, sizeof(keys));
    sealed_push(&hand->sealed, begin->record, NULL, 0);
    return 0;
}

int sealed_take_begun(struct sealed_hand *hand, const struct sealed_begun *begun,
                      struct err *err)
{
    return sealed_pull(&hand->sealed, NULL, begun->record, 0) < 0 ? denied(err) : 0;
}

/* ---- who accepts ---- */

int sealed_take_hello(struct sealed_hand *hand, const struct net_secret *secret, int to,
                      int n_ranks, int *from, struct err *err)
{
    const struct sealed_hello *hello = &hand->hello;
    uint8_t keys[2 * KEY_BYTES];

    if (memcmp(hello->magic, magic, sizeof(magic)) != 0 ||
        !is_mac(hello->mac, secret, "hello", hand))
        return denied(err);
    if (hello->to != (uint32_t)to || hello->n_ranks != (uint32_t)n_ranks ||
        hello->from >= (uint32_t)n_ranks || hello->from <= (uint32_t)to)
        return err_set(err, ERR_INVALID, "rank %u of %u calls rank %u here",
                       (unsigned)hello->from, (unsigned)hello->n_ranks,
                       (unsigned)hello->to);
    *from = (int)hello->from;
    make_key(hand, hand->reply.key);
    if (derive(keys, hand, hello->key, secret, err) < 0)
        return -1;
    crypto_secretstream_xchacha20poly1305_init_push(&hand->sealed.out, hand->reply.header,
                                                    keys + KEY_BYTES);
    /* sealed.in needs the header that begin will bring: its key waits there until then. */
    memcpy(hand->sealed.in.k, keys, KEY_BYTES);
    sodium_memzero(keys, sizeof(keys));
    mac(hand->reply.mac, secret, "reply", hand);
    return 0;
}

int sealed_take_begin(struct sealed_hand *hand, const struct sealed_begin *begin,
                      struct sealed_begun *begun, struct err *err)
{
    uint8_t key[KEY_BYTES];

    memcpy(key, hand->sealed.in.k, sizeof(key));
    crypto_secretstream_xchacha20poly1305_init_pull(&hand->sealed.in, begin->header, key);
    sodium_memzero(key, sizeof(key));
    if (sealed_pull(&hand->sealed, NULL, begin->record, 0) < 0)
        return denied(err);
    sealed_push(&hand->sealed, begun->record, NULL, 0);
    return 0;
}

/* ---- records ---- */

void sealed_push(struct sealed *sealed, uint8_t *record, const void *bytes,
                 size_t n_bytes)
{
    uint32_t length = (uint32_t)n_bytes;

    memcpy(record, &length, SEALED_LENGTH_BYTES);
    crypto_secretstream_xchacha20poly1305_push(
        &sealed->out, record + SEALED_LENGTH_BYTES, NULL, bytes, n_bytes, record,
        SEALED_LENGTH_BYTES, crypto_secretstream_xchacha20poly1305_TAG_MESSAGE);
}

size_t sealed_record_bytes(const uint8_t *record)
{
    uint32_t length;

    memcpy(&length, record, SEALED_LENGTH_BYTES);
    return length <= SEALED_RECORD_MAX ? length + SEALED_OVERHEAD : 0;
}

int sealed_pull(struct sealed *sealed, void *bytes, const uint8_t *record, size_t n_bytes)
{
    return crypto_secretstream_xchacha20poly1305_pull(
        &sealed->in, bytes, NULL, NULL, record + SEALED_LENGTH_BYTES,
        n_bytes + crypto_secretstream_xchacha20poly1305_ABYTES, record,
        SEALED_LENGTH_BYTES);
}

void sealed_forget(void *state, size_t n_bytes)
{
    sodium_memzero(state, n_bytes);
}
