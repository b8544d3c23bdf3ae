/* Attacks run in forked children; this is how one is run and judged.
 *
 * The child marks the violating step right before it takes it, with the id that
 * it expects and the address that it misuses. The parent demands the mark,
 * SIGABRT, and a first line on standard error with exactly that id and that
 * address: a process that merely died has shown nothing. */
#ifndef BH_ATTACK_CHILD_H
#define BH_ATTACK_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ATTACK_RECORDS 8
#define ATTACK_TEXT 4096
#define ATTACK_WORD 48
#define ATTACK_SKIP 77 /* exit status of a test that this machine or build cannot run */

typedef struct attack_record {
    char word[ATTACK_WORD]; /* in the mark: the expected id, or ids separated by '|' */
    uintptr_t value;        /* in the mark: the expected address; 0: any */
} attack_record_t;

/* How a child ended. */
typedef struct attack_end {
    attack_record_t records[ATTACK_RECORDS]; /* the first is the mark */
    unsigned count;
    int status;             /* as from waitpid */
    char text[ATTACK_TEXT]; /* what it wrote to standard error */
} attack_end_t;

/* First of all: no core files, the pipes, the seed (ATTACK_SEED, or a fresh one; printed). */
uint64_t attack_begin(const char *program);

/* Runs body(arg) in a forked child; a body that returns ends with status 0. */
void attack_run(void (*body)(void *), void *arg, attack_end_t *end);

/* In a program that attack_exec runs, instead of attack_begin: records go to it. */
void attack_resume(void);

/* The same for a program, found by path, with one variable more in its environment. */
void attack_exec(const char *path, const char *argument, const char *variable, const char *value, attack_end_t *end);

/* In the child: the mark, and further records after it. Async-signal-safe. */
void attack_record(const char *word, uintptr_t value);

/* NULL when the child ended as its mark says, else what is wrong with it. */
const char *attack_verdict(const attack_end_t *end);

/* The id of the report, or "" when the child did not end by a violation; the
 * address in it goes to *address. */
const char *attack_id(const attack_end_t *end, uintptr_t *address);

/* Whether a record other than the mark has this word. */
bool attack_has(const attack_end_t *end, const char *word);

/* The test itself cannot go on: no verdict on the allocator. */
_Noreturn void attack_broken(const char *what);

/* splitmix64: small, and good enough for the choices of a test. */
static inline uint64_t attack_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* 0 .. n - 1; n > 0. */
static inline uint32_t attack_below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(attack_random(state) % n);
}

#endif
