/* exchange_pmix_api.h - the PMIx library that is there: opened at run time and not linked, for
 * it has to be the one that the launcher works with
 *
 * Owns: nothing; the library stays loaded, for its threads' clean-up is not safe against
 * dlclose. Threads: as the library's calls.
 */
#ifndef VNEVA_SLURM_NODE_EXCHANGE_PMIX_API_H
#define VNEVA_SLURM_NODE_EXCHANGE_PMIX_API_H

#include "slurm/node/exchange.h"

#include <pmix.h>

/* The calls in use, as the library has them. */
struct pmix_api {
    pmix_status_t (*init)(pmix_proc_t *, pmix_info_t *, size_t);
    pmix_status_t (*finalize)(const pmix_info_t *, size_t);
    pmix_status_t (*put)(pmix_scope_t, const char *, pmix_value_t *);
    pmix_status_t (*commit)(void);
    pmix_status_t (*fence_nb)(const pmix_proc_t *, size_t, const pmix_info_t *, size_t,
                              pmix_op_cbfunc_t, void *);
    pmix_status_t (*get)(const pmix_proc_t *, const char *, const pmix_info_t *, size_t,
                         pmix_value_t **);
    pmix_status_t (*register_handler)(pmix_status_t *, size_t, pmix_info_t *, size_t,
                                      pmix_notification_fn_t, pmix_hdlr_reg_cbfunc_t,
                                      void *);
    const char *(*error_string)(pmix_status_t);
};

/* version[EXCHANGE_VERSION_MAX] gets "4.2.2", or "". ERR_UNSUPPORTED: there is none that will
 * do; the text says what to install. */
int pmix_api_open(struct pmix_api *out, char *version, struct err *err);

#endif
