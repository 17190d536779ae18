/* zip_map.h - the entries of a mapped zip file that are stored, not compressed
 *
 * Enough for torch.save: zip64, no encryption, no splitting.
 * Source: PKWARE's APPNOTE.TXT 6.3, sections 4.3 (layout) and 4.5.3 (zip64).
 * Owns: its table; entries point into the file's bytes, which the caller keeps.
 */
#ifndef VNEVA_MODEL_WEIGHTS_ZIP_MAP_H
#define VNEVA_MODEL_WEIGHTS_ZIP_MAP_H

#include "common/base/err.h"

#include <stddef.h>
#include <stdint.h>

#define ZIP_ENTRIES_MAX 1000000

struct zip_entry {
    const char *name; /* no NUL behind it */
    size_t n_name;
    char *data;
    uint64_t n_bytes;
};

struct zip_map {
    struct zip_entry *entries;
    int n_entries;
    const char *directory; /* the central one, which says where all lies */
    uint64_t n_directory;
};

/* ERR_FORMAT: the bytes are no such zip; texts do not name the file. */
int zip_map_open(struct zip_map *out, char *bytes, uint64_t n_bytes, struct err *err);
void zip_map_close(struct zip_map *zip);

/* The first entry whose name ends so, behind a '/' or as a whole; NULL: none. */
const struct zip_entry *zip_map_find(const struct zip_map *zip, const char *ending);

#endif
