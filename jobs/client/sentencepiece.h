/* sentencepiece.h - how many pieces a SentencePiece model holds
 *
 * The client links no SentencePiece; counting takes only the outermost level of the file,
 * a protocol buffer whose field 1 is repeated once a piece.
 * Source: sentencepiece_model.proto, and the encoding page of protobuf.dev.
 */
#ifndef VNEVA_JOBS_CLIENT_SENTENCEPIECE_H
#define VNEVA_JOBS_CLIENT_SENTENCEPIECE_H

#include <stdint.h>

/* 0: path is NULL, or not such a file. */
int64_t sentencepiece_count(const char *path);

#endif
