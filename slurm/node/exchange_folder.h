/* exchange_folder.h - the folder through which nodes without PMIx tell each other texts
 *
 * Everything of one start of an allocation lies below folder/exchange/TOKEN:
 *
 *   here/NODE      made when the node opens the exchange: its host and process
 *   round-K/NODE   what the node puts before its fence K, all at once
 *   events/met-K   made by node 0 when all nodes have come to fence K
 *   events/left-N  made when node N closes the exchange
 *
 * Written for NFS: a file appears whole (written aside, synced, renamed), never changes,
 * and is not looked up by name before it was seen in a listing, so that no client keeps
 * the memory of its absence; listings reopen the folder, which makes the client ask the
 * server whether it has changed (close-to-open). Only node 0 lists the rounds, the others
 * look for one name in events/, so n nodes cost O(n) and not n * n.
 * Owns: nothing but the texts it gives out. Threads: one.
 */
#ifndef VNEVA_SLURM_NODE_EXCHANGE_FOLDER_H
#define VNEVA_SLURM_NODE_EXCHANGE_FOLDER_H

#include "common/base/fs.h"
#include "common/base/json.h"
#include "slurm/node/exchange.h"

#define EXCHANGE_HOST_MAX 256

/* Makes folder/exchange/token with here/ and events/; path[FS_PATH_MAX] gets its name. */
int exchange_folder_make(char *path, const char *folder, const char *token,
                         struct err *err);
/* Whether some node has made it. */
bool exchange_folder_is_met(const char *folder, const char *token);
/* Removes the folders of earlier starts beside this one, of those untouched for a day. */
void exchange_folder_prune(const char *path);

/* Makes here/NODE; ERR_EXISTS says who has made it before. */
int exchange_folder_enter(const char *path, int node, const char *host, struct err *err);
/* The host that here/NODE names; "" when there is none. out[EXCHANGE_HOST_MAX] */
void exchange_folder_host(char *out, const char *path, int node);

/* Writes path/sub/name whole; sub is made where it is missing. */
int exchange_folder_write(const char *path, const char *sub, const char *name,
                          const struct json *json, struct err *err);
/* Reads path/sub/name, which is known to be there: tries again while an NFS client does not
 * see it. The caller frees *out. */
int exchange_folder_read(struct json **out, const char *path, const char *sub,
                         const char *name, struct err *err);

/* Sets seen[i] for every name PREFIXi (0 <= i < n) in path/sub, returns how many there
 * are; -1 with err. A sub that is not there is empty; path must be there. */
int exchange_folder_list(bool *seen, int n, const char *path, const char *sub,
                         const char *prefix, struct err *err);

#endif
