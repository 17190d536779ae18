#include "dataprep/media/choice.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define KIND_TEXT_MAX 128

/* Sizes of one power of two of pixels take about as long, and a GPU takes all or none. */
static int size_class(const struct choice_kind *kind)
{
    int64_t pixels = kind->width * kind->height;
    int class = 0;

    while (pixels >>= 1)
        class ++;
    return class;
}

static bool kind_equals(const struct choice_kind *a, const struct choice_kind *b)
{
    return strcmp(a->codec, b->codec) == 0 && strcmp(a->format, b->format) == 0 &&
           size_class(a) == size_class(b);
}

struct choice *choices_find(struct choices *choices, const struct choice_kind *kind)
{
    struct choice *choice;

    for (int i = 0; i < choices->n_kinds; i++)
        if (kind_equals(&choices->kinds[i].kind, kind))
            return &choices->kinds[i];
    if (choices->n_kinds == CHOICE_KINDS_MAX)
        return NULL;
    choice = &choices->kinds[choices->n_kinds++];
    *choice = (struct choice){.kind = *kind};
    return choice;
}

/* A line that finds no room is lost: nobody takes them. */
static void __attribute__((format(printf, 2, 3)))
note(struct choices *choices, const char *format, ...)
{
    va_list arguments;

    if (choices->n_notes == CHOICE_NOTES_MAX)
        return;
    va_start(arguments, format);
    vsnprintf(choices->notes[choices->n_notes++], CHOICE_NOTE_MAX, format, arguments);
    va_end(arguments);
}

const char *choices_take_note(struct choices *choices)
{
    char(*notes)[CHOICE_NOTE_MAX] = choices->notes;
    char taken[CHOICE_NOTE_MAX];

    if (choices->n_notes == 0)
        return NULL;
    choices->n_notes--;
    memcpy(taken, notes[0], sizeof(taken));
    memmove(notes[0], notes[1], (size_t)choices->n_notes * sizeof(notes[0]));
    memcpy(notes[choices->n_notes], taken, sizeof(taken));
    return notes[choices->n_notes];
}

static void kind_describe(char *out, size_t n_bytes, const struct choice_kind *kind)
{
    snprintf(out, n_bytes, "%s, %s, around %" PRId64 " x %" PRId64 ",", kind->codec,
             kind->format, kind->width, kind->height);
}

void choices_exclude(struct choices *choices, struct choice *choice, const char *why)
{
    char kind[KIND_TEXT_MAX];

    choice->state = CHOICE_CPU;
    kind_describe(kind, sizeof(kind), &choice->kind);
    note(choices, "videos in %s are decoded on the CPU: %s", kind, why);
}

void choices_decide(struct choices *choices, struct choice *choice,
                    const struct choice_trial *trial)
{
    bool is_equal = trial->difference <= CHOICE_DIFFERENCE_MAX;
    bool is_faster = trial->gpu_ns < trial->cpu_ns;
    char kind[KIND_TEXT_MAX], why[96] = "";

    choice->state = is_equal && (is_faster || choices->mode == MEDIA_DECODE_CUDA)
                        ? CHOICE_GPU
                        : CHOICE_CPU;
    choice->n_failures = 0;
    kind_describe(kind, sizeof(kind), &choice->kind);
    if (!is_equal)
        snprintf(why, sizeof(why),
                 "; frames differ by up to %d of 255, the CPU's are right",
                 trial->difference);
    else if (choice->state == CHOICE_GPU && !is_faster)
        snprintf(why, sizeof(why), "; the GPU is asked for");
    note(choices,
         "videos in %s are decoded on the %s: a clip took %.1f ms on the GPU, "
         "%.1f ms on the CPU%s",
         kind, choice->state == CHOICE_GPU ? "GPU" : "CPU", (double)trial->gpu_ns * 1e-6,
         (double)trial->cpu_ns * 1e-6, why);
}

/* Whether a cause is told for the first time. */
static bool is_new_cause(struct choices *choices, const char *cause)
{
    for (int i = 0; i < choices->n_causes; i++)
        if (strncmp(choices->causes[i], cause, CHOICE_CAUSE_MAX - 1) == 0)
            return false;
    if (choices->n_causes == CHOICE_CAUSES_MAX)
        return false;
    snprintf(choices->causes[choices->n_causes++], CHOICE_CAUSE_MAX, "%s", cause);
    return true;
}

void choices_fail(struct choices *choices, struct choice *choice, const char *cause)
{
    char kind[KIND_TEXT_MAX];

    kind_describe(kind, sizeof(kind), &choice->kind);
    choice->n_failures++;
    if (is_new_cause(choices, cause))
        note(choices, "a video in %s was decoded on the CPU instead of the GPU: %s", kind,
             cause);
    if (choice->n_failures < CHOICE_FAILURES_MAX)
        return;
    choice->state = CHOICE_CPU;
    note(
        choices,
        "videos in %s are decoded on the CPU from now on: the GPU failed at %d in a row, "
        "the last time so: %s",
        kind, choice->n_failures, cause);
}

void choices_succeed(struct choice *choice)
{
    choice->n_failures = 0;
}
