/* choice.h - which of a machine's two decoders, CPU or GPU, a kind of video goes to
 *
 * A kind is a codec, a format of pixels and a size to a factor of two. The first video of a kind is
 * decoded both ways; the GPU gets the kind when its frames equal the CPU's within
 * CHOICE_DIFFERENCE_MAX and it was faster (or is asked for whatever it takes). A video that
 * the GPU then fails at is the CPU's; CHOICE_FAILURES_MAX in a row, and the kind is.
 * Pure but for what it remembers: decodes nothing, reads no clock.
 * Owns: nothing on the heap. Threads: one caller. Units: ns, values of 255.
 */
#ifndef VNEVA_DATAPREP_MEDIA_CHOICE_H
#define VNEVA_DATAPREP_MEDIA_CHOICE_H

#include "dataprep/media/media.h"

#define CHOICE_KINDS_MAX 32
#define CHOICE_CAUSES_MAX 16
#define CHOICE_CAUSE_MAX 200
#define CHOICE_NOTE_MAX 400
#define CHOICE_NOTES_MAX 8
#define CHOICE_FAILURES_MAX 3
#define CHOICE_DIFFERENCE_MAX 1

enum choice_state { CHOICE_OPEN, CHOICE_CPU, CHOICE_GPU };

struct choice_kind {
    char codec[32];
    char format[32]; /* of pixels: which planes, how many bits */
    int64_t width, height;
};

struct choice {
    struct choice_kind kind; /* of its first video */
    enum choice_state state;
    int n_failures; /* in a row */
};

struct choices {
    enum media_decode mode; /* MEDIA_DECODE_AUTO or _CUDA */
    int n_kinds;
    struct choice kinds[CHOICE_KINDS_MAX];
    int n_causes;
    char causes[CHOICE_CAUSES_MAX][CHOICE_CAUSE_MAX]; /* told already */
    int n_notes;
    char notes[CHOICE_NOTES_MAX][CHOICE_NOTE_MAX]; /* to be told */
};

/* What decoding a video both ways gave. */
struct choice_trial {
    int64_t cpu_ns, gpu_ns;
    int difference; /* largest of any value of the frames */
};

/* The choice for videos of this kind; NULL: there are more kinds than are kept, CPU. */
struct choice *choices_find(struct choices *choices, const struct choice_kind *kind);

/* An open choice that needs no trial: the CPU's, noted with the reason. */
void choices_exclude(struct choices *choices, struct choice *choice, const char *why);

/* Decides an open choice, and notes it with both figures. */
void choices_decide(struct choices *choices, struct choice *choice,
                    const struct choice_trial *trial);

/* The GPU failed at a video that the CPU decoded. Noted once for each cause. */
void choices_fail(struct choices *choices, struct choice *choice, const char *cause);
void choices_succeed(struct choice *choice);

/* A line for the log that nobody has taken yet, oldest first; NULL: none. Valid until the
 * next call with these choices. */
const char *choices_take_note(struct choices *choices);

#endif
