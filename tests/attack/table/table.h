/* The attack table: programs with a heap bug, for any allocator that can be
 * preloaded. Uses only what every malloc has, and nothing of Bulkhead's.
 *
 * A process commits one attack (row, size, actor) and tells of it in lines on
 * standard output:
 *   marker               the next step is the bug
 *   expect LOW HIGH      a fault at an address from LOW to below HIGH is a guard's
 *   fault ADDRESS        written by the handler of SIGSEGV and SIGBUS
 *   tally HITS TRIALS    of a row that states a probability
 *   note TEXT            for the reader
 * and ends with one of the exit codes below, or by a signal. tools/attack.py
 * turns that into a verdict and compares it with the row's promise. */
#ifndef BH_ATTACK_TABLE_H
#define BH_ATTACK_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    END_USAGE = 2,
    END_ABSENT = 42,  /* the effect that the row states is absent */
    END_PRESENT = 43, /* the effect was reached */
    END_NOT_HERE = 44, /* the row cannot be tried here */
    END_BROKEN = 45   /* could not even prepare the attack */
};

/* Who does what. The owner prepares, the actor strikes. */
typedef enum actor {
    ACTOR_LOCAL, /* the owner itself */
    ACTOR_OTHER, /* another thread, while the owner lives */
    ACTOR_DEAD,  /* another thread, after the owner's end */
    ACTOR_BOTH,  /* two other threads at once */
    ACTOR_RACE,  /* the owner and another thread at once */
    ACTOR_FORK,  /* the child of a fork */
    ACTORS
} actor_t;

#define MOST_BLOCKS 12000

typedef struct scene {
    size_t size;
    int variant;    /* the row's */
    actor_t actor;
    uint64_t random;
    uintptr_t at;   /* what the bug is about */
    size_t reach;   /* how many bytes from there on are the program's */
    size_t count;   /* of block[] */
    bool effect;    /* what a strike may find out itself */
    uintptr_t block[MOST_BLOCKS];
    size_t kept_count;
    uintptr_t kept[20]; /* blocks of settle() that stay */
} scene_t;

/* A promise names the verdicts that keep it, and for DETECTED the ids that a
 * Bulkhead may report; without ids any will do. "RARE:1/8" bounds the tally.
 *   NOW    holds, and the runner insists
 *   LATER  a mechanism of design.md that is not built yet: shown, not insisted on
 *   NONE   the profile promises nothing */
#define NOW(promise) promise
#define LATER(promise) "later " promise
#define NONE "none"

typedef struct row {
    const char *name;    /* NULL ends a table */
    const char *what;    /* the bug, and the effect that the program looks for */
    const char *sizes;   /* of blocks, in bytes */
    const char *actors;
    const char *secure, *hardened; /* promises */
    int variant;
    void (*prepare)(scene_t *);    /* by the owner; may be NULL */
    void (*strike)(scene_t *);     /* by the actor; calls marker() before the bug */
    bool (*check)(scene_t *);      /* the effect; by the actor and the main thread; NULL: scene's */
    bool at_exit;                  /* the verdict waits for what exit() finds */
} row_t;

typedef struct table {
    const char *group;
    const row_t *rows;
} table_t;

extern const row_t rows_free[], rows_realloc[], rows_adjacent[], rows_walk[], rows_reclaim[], rows_spray[], rows_uninitialised[],
    rows_links[], rows_control[], rows_how2heap[];

/* ------------------------------------------------------------------ support.c */

void marker(void);
void expect_fault(uintptr_t low, uintptr_t high);
/* A fault from here on is the allocator's own, and no guard's. */
void expect_no_fault(void);
/* In any of block[], which the program may have freed. */
void expect_in_blocks(const scene_t *s);
void tally(unsigned long hits, unsigned long trials);
_Noreturn void finish(int code, bool through_exit);
void catch_faults(void);

uint64_t draw(scene_t *s);
size_t below(scene_t *s, size_t limit);

/* Runs body in a thread of its own and waits for its end. */
void elsewhere(void (*body)(scene_t *), scene_t *s);
/* Runs first here, then body at once in 1 or 2 other threads, and here too if
 * here. The threads exist before first runs: starting one allocates. */
void after_first(void (*first)(scene_t *), void (*body)(scene_t *), scene_t *s, unsigned threads, bool here);

/* Runs this program as "probe ROW SIZE SEED" and returns how many numbers it
 * printed, at most limit. */
size_t probe(const char *row, size_t size, uint64_t seed, uint64_t *numbers, size_t limit);
void print_number(uint64_t number);

/* ------------------------------------------------------------------- memory.c */

/* Blocks are numbers here: the compiler must not reason about them. */
uintptr_t take(size_t size);
void give(uintptr_t p);
size_t usable(uintptr_t p);
unsigned char *bytes(uintptr_t p);
uint64_t *words(uintptr_t p);
void fill(uintptr_t p, unsigned char value, size_t n);

/* A heap that is not new: some blocks of the size, half of them freed. */
void settle(scene_t *s);
/* Takes n blocks into block[]; at becomes one of them, reach its usable size. */
void take_many(scene_t *s, size_t n);
/* How many blocks of the size a row may take. */
size_t some_blocks(size_t size, size_t most);
/* Frees every block of block[] but at. */
void give_others(scene_t *s);

/* No block handed out later may touch these bytes. */
void protect(uintptr_t low, size_t n);
/* Takes n blocks of the size and keeps them: whether two of them, or one of them
 * and something protected, have a byte in common. */
bool reissue(size_t size, size_t n);
bool reissue_checked(scene_t *s);

/* A mapping that can be written to. */
typedef struct range {
    uintptr_t low, high;
    bool anonymous, special; /* special: stack, vdso */
} range_t;
size_t writable_ranges(range_t *ranges, size_t limit);
const range_t *range_of(const range_t *ranges, size_t count, uintptr_t address);
/* Reads without a fault; false where it cannot be read. */
bool peek(uintptr_t from, void *to, size_t n);

#endif
