#include "slurm/node/devices.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <string.h>

/* CUDA takes the list up to the first entry that is no device: "-1", "NoDevFiles". */
static int64_t count_visible(const char *list)
{
    int64_t n = 0;

    while (*list) {
        size_t length = strcspn(list, ",");

        if (length == 0 || *list == '-' || strncmp(list, "NoDevFiles", length) == 0)
            break;
        n++;
        list += length;
        list += *list == ',';
    }
    return n;
}

/* Entries [first, first + n) of the list. */
static int cut_visible(char *out, const char *list, int64_t first, int64_t n,
                       struct err *err)
{
    size_t used = 0;

    for (int64_t i = 0; i < first + n; i++) {
        size_t length = strcspn(list, ",");

        if (i >= first) {
            if (used + length + 2 > DEVICES_VISIBLE_MAX)
                return err_set(err, ERR_LIMIT, "CUDA_VISIBLE_DEVICES is too long");
            if (used)
                out[used++] = ',';
            memcpy(out + used, list, length);
            used += length;
            out[used] = '\0';
        }
        list += length;
        list += *list == ',';
    }
    return 0;
}

/* GPUs first, first + 1, ... where nobody has numbered them otherwise. */
static int number_visible(char *out, int64_t first, int64_t n, struct err *err)
{
    size_t used = 0;

    for (int64_t i = first; i < first + n; i++) {
        int length = snprintf(out + used, DEVICES_VISIBLE_MAX - used, "%s%lld",
                              used ? "," : "", (long long)i);

        if (used + (size_t)length >= DEVICES_VISIBLE_MAX)
            return err_set(err, ERR_LIMIT, "too many GPUs");
        used += (size_t)length;
    }
    return 0;
}

int devices_decide(struct devices *out, const struct devices_facts *facts,
                   struct err *err)
{
    int64_t n_gpus = facts->visible  ? count_visible(facts->visible)
                     : facts->n_said ? facts->n_said
                                     : facts->n_files;
    int64_t share, first;

    *out = (struct devices){.n = facts->asked, .are_gpus = n_gpus > 0};
    if (n_gpus <= 0) {
        if (!out->n)
            out->n = facts->n_spec ? facts->n_spec : 1;
        return 0;
    }
    share = n_gpus / facts->n_local;
    first = share * facts->local;
    if (share == 0) { /* more programs than GPUs: they take turns */
        share = 1;
        first = facts->local % n_gpus;
    }
    if (!out->n)
        out->n = share;
    if (facts->n_local == 1)
        return 0;
    return facts->visible ? cut_visible(out->visible, facts->visible, first, share, err)
                          : number_visible(out->visible, first, share, err);
}

int64_t devices_count_files(void)
{
    static const char prefix[] = "nvidia";
    DIR *folder = opendir("/dev");
    const struct dirent *entry;
    int64_t n = 0;

    if (!folder)
        return 0;
    while ((entry = readdir(folder)) != NULL) {
        const char *digits = entry->d_name + sizeof(prefix) - 1;

        if (strncmp(entry->d_name, prefix, sizeof(prefix) - 1) != 0 || !*digits)
            continue;
        while (isdigit((unsigned char)*digits))
            digits++;
        n += *digits == '\0';
    }
    closedir(folder);
    return n;
}
