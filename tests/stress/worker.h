/* What the threads of the test do. */
#ifndef STRESS_WORKER_H
#define STRESS_WORKER_H

#include "ops.h"

/* The mix of operations changes from time to time. */
enum phase {
    PHASE_MIXED,    /* everything */
    PHASE_PRODCONS, /* even workers allocate, odd ones free */
    PHASE_BULK,     /* many blocks of one size, freed by another thread */
    PHASE_CHURN,    /* local allocation and free of small blocks */
    PHASE_COUNT
};

/* Set by the controller, read by the workers. */
extern atomic_int worker_phase;
extern _Atomic size_t worker_target; /* live bytes to hover around */
extern atomic_bool worker_fork_wanted;

void worker_init(void);

/* Starts a thread in the slot; `w->finished` says when it can be joined. */
void worker_start(struct worker *w);

/* The callback given to bh_register_deferred_free. */
void worker_deferred_free(bool force, unsigned long long heartbeat, void *arg);

/* Argument that the callback must get. */
extern char worker_callback_mark;

/* The callback keeps to its checks and makes no more blocks. */
extern atomic_bool worker_callback_quiet;

/* Forks; the child checks and frees what it can see, this thread waits. */
void child_fork(struct worker *w);

#endif /* STRESS_WORKER_H */
