/* What the threads do: calls of bh_malloc and bh_free, one in a turn. */
#ifndef BENCH_LINES_WORKLOADS_H
#define BENCH_LINES_WORKLOADS_H

#include "machine.h"

#include <semaphore.h>

enum { MOST = MACHINE_PROCESSORS, SLOTS = 1000, QUEUE = 4096 };

/* Ends the program. */
_Noreturn void lines_fail(const char *what);

static inline void check(bool holds, const char *what)
{
    if (__builtin_expect(!holds, 0))
        lines_fail(what);
}

struct block {
    unsigned char *at;
    unsigned char tag;
};

/* First in, first out. */
struct queue {
    struct block blocks[QUEUE];
    unsigned first, count;
};

struct worker {
    unsigned number;
    uint64_t random;
    uint64_t steps;
    struct block slots[SLOTS];
    struct block *emptied; /* of the slots, to be filled next */
    struct block pocket;   /* to be freed next */
    struct queue queue;
    unsigned age; /* steps of the thread that runs now */
    sem_t turn;
};

extern struct worker workers[MOST];
extern unsigned processors;

struct workload {
    const char *name;
    void (*step)(struct worker *w);
    /* Whose turns make up a round, in order; their number. */
    unsigned (*order)(uint64_t round, unsigned *who);
    unsigned life; /* steps of a thread, then another goes on; 0: it stays */
    /* Of known accesses, with more than one processor, the transfers of a round. */
    unsigned (*reads)(void), (*writes)(void);
};

/* NULL: there is none. */
const struct workload *workload_named(const char *name);

/* All have a turn, by number. */
unsigned order_all(uint64_t round, unsigned *who);

/* Sets up n workers at their first step. */
void workers_start(unsigned n);

#endif
