/* What the programs of this folder share: figures about the own process,
 * children that may die, and one form for results.
 *
 * Each program measures one promise about cost or behaviour at the edges, with
 * the shared library preloaded or linked, and prints lines of the form
 *
 *     NAME: figure (bound ...)
 *
 * with FAIL at the end where the bound does not hold. Exit status: 0 all held,
 * 1 a bound does not hold, 2 the test could not do its work, 77 the machine
 * cannot do what the test needs.
 *
 * LIMITS_ANY_ALLOCATOR=1 in the environment lets a program run without
 * Bulkhead, to see that it can fail.
 */
#ifndef LIMITS_SUPPORT_H
#define LIMITS_SUPPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define KIB ((size_t)1024)
#define MIB (KIB * KIB)
#define GIB (MIB * KIB)

#define LIMITS_SKIP 77

/* Sizes of the classes up to 128 KiB: 8, steps of 16 to 128, then eighths of a
 * power of two. */
#define LIMITS_CLASS_MAX (128 * KIB)
#define LIMITS_CLASSES_MAX 128
size_t limits_classes(size_t out[LIMITS_CLASSES_MAX]);

/* To be called first: line-buffered output without the heap, and the check that
 * the program runs on Bulkhead. */
void limits_begin(void);

/* Prints one result line and remembers whether it held. */
void limits_result(bool held, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The exit status after all results. */
int limits_end(void);

/* The test cannot do its work; not a verdict on the allocator. */
_Noreturn void limits_broken(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void limits_skip(const char *reason);

/* Exact resident bytes of this process, by a walk of the page tables. */
size_t limits_rss(void);

/* A field of /proc/PID/status in bytes, PID 0 for this process. */
size_t limits_status(pid_t pid, const char *field);

size_t limits_mappings(void);
size_t limits_memory_available(void);
size_t limits_os_page(void);
uint64_t limits_now_ns(void);

/* Zeroed memory that is not the allocator's. */
void *limits_table(size_t bytes);

struct limits_child {
    int status;        /* as from waitpid; SIGALRM when it took too long */
    char output[4096]; /* what it wrote to standard error and standard output */
};

/* Runs `body` in a forked child, which ends with status 0 if `body` returns. */
void limits_fork(struct limits_child *child, unsigned seconds, void (*body)(void *), void *arg);

/* Runs a program with the same allocator as this one, or with the system's. */
void limits_exec(struct limits_child *child, unsigned seconds, bool preload, char *const argv[]);

/* Path of this program. */
const char *limits_self(void);

/* A small generator for the tests' own choices. */
static inline uint64_t limits_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* The seed is printed, and can be given as LIMITS_SEED. */
uint64_t limits_seed(void);

#endif /* LIMITS_SUPPORT_H */
