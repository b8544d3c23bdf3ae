/* Which kernel calls fail, when, and with which errno. One plan at a time, for
 * all threads; the figures lie in memory that forked children share. */
#ifndef BH_FAULT_INJECT_H
#define BH_FAULT_INJECT_H

#include "os/os.h"

#define INJECT_ALL (((uint32_t)1 << BHI_OS_CALLS) - 1)
#define INJECT(kind) ((uint32_t)1 << (kind))

typedef struct inject_plan {
    uint32_t kinds;  /* set of kinds that may fail */
    uint32_t first;  /* calls of these kinds are counted from 1: the first that fails */
    uint32_t last;   /* and the last, UINT32_MAX for all that follow */
    uint32_t one_in; /* between these, one in so many fails, at random; 1 = each */
    uint64_t seed;
    int error;       /* errno value; 0: one of the plausible ones at random */
} inject_plan_t;

/* Before the first child: memory for the figures. */
void inject_init(void);

/* Starts a plan (before start-up too: uses nothing of libc) and ends it. */
void inject_start(const inject_plan_t *plan);
void inject_stop(void);

/* Calls of the plan's kinds so far, and how many failed. */
uint32_t inject_seen(void);
uint32_t inject_failed(void);

/* The errno values that kernels and sandboxes answer with. */
#define INJECT_ERRORS 4
extern const int inject_errors[INJECT_ERRORS];

extern const char *const inject_kind_names[BHI_OS_CALLS];

#endif
