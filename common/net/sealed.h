/* sealed.h - the handshake and the records of an encrypted stream between two ranks
 *
 * Both ranks know the secret of their attempt and nobody else does. Who connects and who
 * accepts exchange four messages:
 *
 *     hello   connects -> accepts   who calls whom, a fresh X25519 key, MAC
 *     reply   accepts -> connects   a fresh X25519 key, header of its records, MAC
 *     begin   connects -> accepts   header of its records, an empty record
 *     begun   accepts -> connects   an empty record
 *
 * The keys of the records, one for each direction, are a keyed hash (by the secret) over
 * what the two X25519 keys make together, hello and reply: a record that opens proves that
 * its sender knows the secret and saw the same fresh keys. So a recorded session cannot be
 * played again, no two streams share a key, and who learns the secret later cannot read
 * what was recorded before. The MACs turn strangers away before any work is done.
 *
 * A record is its length (4 bytes, authenticated) and the ciphertext of libsodium's
 * secretstream (XChaCha20-Poly1305), which counts records: none can be left out, repeated
 * or put elsewhere.
 *
 * Pure: bytes in, bytes out. Owns: keys in its structs; sealed_forget wipes them.
 */
#ifndef VNEVA_COMMON_NET_SEALED_H
#define VNEVA_COMMON_NET_SEALED_H

#include "common/base/err.h"
#include "common/net/secret.h"

#include <sodium.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEALED_RECORD_MAX (64u << 10) /* bytes of a record before it is sealed */
#define SEALED_LENGTH_BYTES 4u
#define SEALED_OVERHEAD                                                                  \
    (SEALED_LENGTH_BYTES + crypto_secretstream_xchacha20poly1305_ABYTES)
#define SEALED_HEADER_BYTES crypto_secretstream_xchacha20poly1305_HEADERBYTES

struct sealed_hello {
    uint8_t magic[8];
    uint32_t from, to, n_ranks, zero;
    uint8_t key[crypto_scalarmult_BYTES];
    uint8_t mac[crypto_auth_BYTES];
};

struct sealed_reply {
    uint8_t key[crypto_scalarmult_BYTES];
    uint8_t header[SEALED_HEADER_BYTES];
    uint8_t mac[crypto_auth_BYTES];
};

struct sealed_begin {
    uint8_t header[SEALED_HEADER_BYTES];
    uint8_t record[SEALED_OVERHEAD];
};

struct sealed_begun {
    uint8_t record[SEALED_OVERHEAD];
};

struct sealed { /* one stream */
    crypto_secretstream_xchacha20poly1305_state out, in;
};

struct sealed_hand {                            /* one handshake */
    uint8_t key[crypto_scalarmult_SCALARBYTES]; /* our half, secret */
    struct sealed_hello hello;
    struct sealed_reply reply;
    struct sealed sealed; /* ready when the handshake is over */
};

/* Of who connects: fills hand->hello; takes hand->reply and fills begin; takes begun.
 * ERR_DENIED: the other side does not know the secret. */
void sealed_hello(struct sealed_hand *hand, const struct net_secret *secret, int from,
                  int to, int n_ranks);
int sealed_take_reply(struct sealed_hand *hand, const struct net_secret *secret,
                      struct sealed_begin *begin, struct err *err);
int sealed_take_begun(struct sealed_hand *hand, const struct sealed_begun *begun,
                      struct err *err);

/* Of who accepts: takes hand->hello, says who calls and fills hand->reply; takes begin and
 * fills begun. ERR_DENIED as above; ERR_INVALID: the call is for somebody else. */
int sealed_take_hello(struct sealed_hand *hand, const struct net_secret *secret, int to,
                      int n_ranks, int *from, struct err *err);
int sealed_take_begin(struct sealed_hand *hand, const struct sealed_begin *begin,
                      struct sealed_begun *begun, struct err *err);

/* Writes n_bytes (at most SEALED_RECORD_MAX) as a record of n_bytes + SEALED_OVERHEAD. */
void sealed_push(struct sealed *sealed, uint8_t *record, const void *bytes,
                 size_t n_bytes);
/* The whole length of the record that begins with these SEALED_LENGTH_BYTES; 0 when none
 * can. */
size_t sealed_record_bytes(const uint8_t *record);
/* Opens a whole record of n_bytes + SEALED_OVERHEAD. -1: it is not what was sent. */
int sealed_pull(struct sealed *sealed, void *bytes, const uint8_t *record,
                size_t n_bytes);

void sealed_forget(void *state, size_t n_bytes);

#endif
