/* reader.h - reads an indexed video's packets again, from any packet on
 *
 * Every packet read is compared with its index entry, so that a container whose seeking
 * is inexact is noticed; it is then read from its start. Inside dataprep/media only.
 */
#ifndef VNEVA_DATAPREP_MEDIA_READER_H
#define VNEVA_DATAPREP_MEDIA_READER_H

#include "dataprep/media/index.h"

struct reader {
    struct source *source;
    struct packet_index *index;
    AVPacket *packet; /* the last one read */
    int64_t next;     /* number of the packet the next read gives; -1: not known */
};

int reader_init(struct reader *out, struct packet_index *index, struct source *source,
                struct err *err);
void reader_fini(struct reader *reader);

/* Reads packet number k into reader->packet. */
int reader_read(struct reader *reader, int64_t k, struct err *err);

#endif
