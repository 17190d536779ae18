/* html.h - pieces of a page: escaped text, bytes as base64 */
#ifndef VNEVA_JOBS_CLIENT_HTML_H
#define VNEVA_JOBS_CLIENT_HTML_H

#include "common/base/buf.h"

/* For content and for attributes in double quotes. NULL adds nothing. */
void html_text(struct buf *out, const char *text);
void html_base64(struct buf *out, const void *bytes, size_t n_bytes); /* RFC 4648 */

#endif
