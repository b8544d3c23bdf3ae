/* Shared types of the stress test.
 *
 * The test has four layers, each knowing only those above it in this list:
 *
 *   sut     the allocator under test, and the planted faults that show that
 *           the oracle can fail
 *   oracle  what is true of live blocks: who owns which bytes, what they
 *           contain, which heap a slot belongs to. Lock-free, outside the heap
 *   store   where records of live blocks wait: shards under a lock, mailboxes
 *   ops     what a worker does; child: what a forked child does
 *
 * Two rules make every layer simple:
 *
 *  - A record is in exactly one place: in a shard, in a mailbox, or in the
 *    hands of one thread. Nobody touches a block whose record he does not hold.
 *  - No lock of the test is held while the allocator allocates or frees. So a fork
 *    that holds all shard locks still happens while other threads are in the
 *    middle of the allocator, and the deferred-free callback may use the store.
 *
 * All memory of the test itself comes from mmap, never from the heap.
 */
#ifndef STRESS_H
#define STRESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KIB ((size_t)1024)
#define MIB (KIB * KIB)

#if defined(__SANITIZE_THREAD__)
#define STRESS_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define STRESS_TSAN 1
#endif
#endif
#ifndef STRESS_TSAN
#define STRESS_TSAN 0
#endif

#if STRESS_TSAN || defined(__SANITIZE_ADDRESS__)
#define STRESS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define STRESS_SANITIZED 1
#endif
#endif
#ifndef STRESS_SANITIZED
#define STRESS_SANITIZED 0
#endif

/* How a block was obtained; decides which sized free is legal for it. */
enum form {
    FORM_PLAIN,   /* malloc, calloc, realloc: bh_free_sized */
    FORM_ALIGNED, /* aligned_alloc: bh_free_aligned_sized */
    FORM_POSIX,   /* posix_memalign: plain free only */
};

/* The record of one live block. Heap 0 is the default heap of any thread:
 * those may share pages, since an exiting thread's pages are adopted. */
struct block {
    uintptr_t addr;
    size_t size;   /* bytes asked for */
    size_t usable; /* usable size when it was handed out */
    uint64_t seed; /* of the fill pattern */
    size_t align;  /* requested alignment, 0 if none */
    uint32_t heap;
    uint8_t form;
    bool sparse; /* filled at some places only (large blocks) */
};

/* splitmix64: small, good enough to choose operations, the same everywhere. */
struct rng {
    uint64_t state;
};

static inline uint64_t rng_next(struct rng *r)
{
    uint64_t z = (r->state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* Below `bound` (not 0); the bias of the modulo does not matter here. */
static inline uint64_t rng_below(struct rng *r, uint64_t bound)
{
    return rng_next(r) % bound;
}

static inline bool rng_chance(struct rng *r, unsigned permille)
{
    return rng_below(r, 1000) < permille;
}

enum counter {
    STAT_MALLOC,
    STAT_ZALLOC,
    STAT_CALLOC,
    STAT_ALIGNED,
    STAT_POSIX_MEMALIGN,
    STAT_REALLOC,
    STAT_REALLOCARRAY,
    STAT_FREE,
    STAT_FREE_SIZED,
    STAT_IMPOSSIBLE,
    STAT_CHECK,
    STAT_SHARED_FREE,
    STAT_HEAP_ALLOC,
    STAT_HEAP_NEW,
    STAT_HEAP_DELETE,
    STAT_HEAP_DESTROY,
    STAT_COLLECT,
    STAT_CALLBACK,
    STAT_MAIL_BLOCKS,
    STAT_TLS_DESTRUCTOR,
    STAT_FORK,
    STAT_COUNT
};

/* Whether nobody else uses the allocator in this process. */
#ifndef STRESS_ALONE
#define STRESS_ALONE 1
#endif

struct options {
    unsigned seconds;
    unsigned grace; /* seconds beyond `seconds` before a run counts as hung */
    unsigned threads;
    uint64_t seed;
    size_t max_bytes;
    bool no_fork;
    bool supervise;
};

extern struct options opt;

/* Set when the run is over; workers leave at the next operation. */
extern atomic_bool stress_stop;

/* Ends the process: prints "stress: FINDING: <kind>: <text>", exit status 1.
 * Uses no stdio and no heap, so that it also works in a forked child and in
 * the middle of the allocator. */
_Noreturn void finding(const char *kind, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Zeroed memory outside the heap, committed as it is touched. */
void *table_new(size_t bytes);

#endif /* STRESS_H */
