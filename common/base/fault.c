#include "common/base/fault.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FAULT_POINTS_MAX 16

struct fault {
    char point[48];
    char action[8];
    long on_passage; /* 0: every passage */
    atomic_int n_passages;
};

/* Read once from the environment; only the passage counters change afterwards. */
static struct fault faults[FAULT_POINTS_MAX];
static int n_faults;
static pthread_once_t faults_once = PTHREAD_ONCE_INIT;

static void faults_read(void)
{
    const char *env = getenv("VNEVA_FAULT");
    char text[1024];
    char *save = NULL;

    if (!env)
        return;
    snprintf(text, sizeof(text), "%s", env);
    for (char *item = strtok_r(text, ",", &save); item && n_faults < FAULT_POINTS_MAX;
         item = strtok_r(NULL, ",", &save)) {
        struct fault *fault = &faults[n_faults];
        char passage[12] = "";

        if (sscanf(item, "%47[^:]:%7[a-z]@%11s", fault->point, fault->action, passage) <
            2)
            continue;
        fault->on_passage = strtol(passage, NULL, 10);
        n_faults++;
    }
}

bool fault_hit(const char *point)
{
    pthread_once(&faults_once, faults_read);
    for (int i = 0; i < n_faults; i++) {
        struct fault *fault = &faults[i];
        int passage;

        if (strcmp(fault->point, point) != 0)
            continue;
        passage = atomic_fetch_add(&fault->n_passages, 1) + 1;
        if (fault->on_passage && passage != fault->on_passage)
            continue;
        if (strcmp(fault->action, "kill") == 0)
            kill(getpid(), SIGKILL);
        while (strcmp(fault->action, "hang") == 0)
            pause();
        return true;
    }
    return false;
}
