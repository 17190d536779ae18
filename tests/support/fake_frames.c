#include "tests/support/fake_frames.h"

#include "common/base/fault.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int submit(void *state, const struct frame_request *request, bool only_probe,
                  int64_t *ticket, struct err *err)
{
    struct fake_frames *fake = state;

    for (int i = 0; i < FAKE_SLOTS; i++) {
        if (fake->slots[i].is_used)
            continue;
        fake->slots[i].is_used = true;
        fake->slots[i].only_probe = only_probe;
        fake->slots[i].request = *request;
        fake->n_requests++;
        if (++fake->n_taken > fake->most_taken)
            fake->most_taken = fake->n_taken;
        *ticket = i;
        return 0;
    }
    return err_set(err, ERR_LIMIT, "all slots are taken");
}

/* How many frames the medium says it has; -1: it does not decode. */
static int64_t read_medium(const struct media_ref *ref)
{
    FILE *file = fopen(ref->path, "rb");
    char text[32] = "";
    size_t room = ref->n_bytes && ref->n_bytes < sizeof(text) - 1 ? (size_t)ref->n_bytes
                                                                  : sizeof(text) - 1;

    if (!file)
        return -1;
    if (fseek(file, (long)ref->offset, SEEK_SET) == 0)
        text[fread(text, 1, room, file)] = '\0';
    fclose(file);
    return strncmp(text, "frames ", 7) == 0 ? strtoll(text + 7, NULL, 10) : -1;
}

static int wait(void *state, int64_t ticket, const uint8_t **frames,
                struct media_info *info, struct err *err)
{
    struct fake_frames *fake = state;
    const struct frame_request *request = &fake->slots[ticket].request;
    int64_t n = read_medium(&request->media);
    size_t frame = (size_t)(request->image_size * request->image_size * 3);

    if (fault_hit("test.media"))
        return err_set(err, ERR_PEER, "fault point test.media");
    if (n < 0)
        return err_set(err, ERR_FORMAT, "it is no video");
    *info = (struct media_info){.n_source_frames = n, .fps = 10};
    info->n_frames = request->num_frames == -1 ? n : request->num_frames;
    if (request->media.kind == MEDIA_IMAGE || request->splice != MEDIA_SPLICE_NONE)
        info->n_frames = 1;
    *frames = NULL;
    if (fake->slots[ticket].only_probe)
        return 0;
    fake->slots[ticket].frames = malloc((size_t)info->n_frames * frame + 1);
    for (int64_t i = 0; fake->slots[ticket].frames && i < info->n_frames; i++)
        memset(fake->slots[ticket].frames + (size_t)i * frame, (int)(i + n), frame);
    *frames = fake->slots[ticket].frames;
    return 0;
}

static void release(void *state, int64_t ticket)
{
    struct fake_frames *fake = state;

    free(fake->slots[ticket].frames);
    fake->slots[ticket].frames = NULL;
    fake->slots[ticket].is_used = false;
    fake->n_taken--;
}

struct frame_service fake_frames_service(struct fake_frames *fake)
{
    *fake = (struct fake_frames){0};
    return (struct frame_service){fake, submit, wait, release, NULL};
}
