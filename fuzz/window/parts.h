/* What the window reaches of variables that only their source file knows: parts_*.c
 * compile those files of src/core with an accessor behind them. */
#ifndef BH_FUZZ_PARTS_H
#define BH_FUZZ_PARTS_H

#include "meta/types.h"

/* A thread's variables, while another context runs. */
typedef struct context_vars {
    bhi_heap_t *heap;        /* core/thread.c */
    bool ended, end_watched;
    bhi_hazard_t *hazard;    /* core/hazard.c */
    unsigned without_heap;
    bool in_callback;        /* core/heap.c */
    unsigned long long heartbeat;
    bool purge_waits;
} context_vars_t;

void parts_thread_save(context_vars_t *to);
void parts_thread_load(const context_vars_t *from);
void parts_hazard_save(context_vars_t *to);
void parts_hazard_load(const context_vars_t *from);
void parts_heap_save(context_vars_t *to);
void parts_heap_load(const context_vars_t *from);

/* One round of the calling thread's destructors. */
void parts_thread_exit(void);

#endif
