/* How long single calls of malloc and free take: a histogram, over a mix of sizes in
 * two threads that pass some blocks to each other. Prints lines
 *
 *     malloc|free plain|fault|preempted NANOSECONDS CALLS
 *
 * for latency.py. NANOSECONDS is the upper end of a class, 1/16 of a power of two wide;
 * the cost of reading the clock is taken off.
 *
 * Calls during which pages were faulted in, or another thread took the processor, are
 * counted apart. Asking the kernel at each call would be most of the time, so only a
 * call of half a page fault's time or longer asks; and so does the program when what
 * it did between two calls took as long, so that its own faults are not laid to the
 * call that follows. */
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

enum { THREADS = 2, SLOTS = 6000, SHARED = 512, SIZES = 1 << 14, WARM_UP = 4 };
enum { STEPS = 16, CLASSES = 40 * STEPS, PROBED_PAGES = 200, STRIDE = 4096 };
enum kind { PLAIN, FAULT, PREEMPTED, KINDS };

static const char *const kind_names[KINDS] = {"plain", "fault", "preempted"};

/* --------------------------------------------------------------------- clock */

static double ticks_per_ns;
static uint64_t clock_cost; /* ticks */
static uint64_t suspicious; /* ticks; from here on a call may have had a fault */

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* What is before has ended, and what comes after has not begun. */
static inline uint64_t ticks(void)
{
#if defined(__x86_64__)
    unsigned processor;
    uint64_t value = __rdtscp(&processor);
    _mm_lfence();
    return value;
#elif defined(__aarch64__)
    uint64_t value;
    __asm__ volatile("isb\n\tmrs %0, cntvct_el0\n\tisb" : "=r"(value) : : "memory");
    return value;
#else
    return now_ns();
#endif
}

static size_t os_page(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* PROBED_PAGES that are not there yet. */
static unsigned char *probe_pages(void)
{
    unsigned char *pages = mmap(NULL, PROBED_PAGES * os_page(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bench_check(pages != MAP_FAILED, "mmap");
    bench_check(madvise(pages, PROBED_PAGES * os_page(), MADV_NOHUGEPAGE) == 0 || errno == EINVAL, "madvise");
    return pages;
}

/* The least time from ticks to ticks, and with a write into a fresh page between. */
static void calibrate(void)
{
    uint64_t began = ticks(), began_ns = now_ns(), fault = UINT64_MAX;
    unsigned char *pages = probe_pages();
    clock_cost = UINT64_MAX;
    for (unsigned i = 0; i < PROBED_PAGES; i++) {
        uint64_t first = ticks(), second = ticks();
        ((volatile unsigned char *)pages)[i * os_page()] = 1;
        uint64_t third = ticks();
        clock_cost = second - first < clock_cost ? second - first : clock_cost;
        fault = third - second < fault ? third - second : fault;
    }
    bench_check(munmap(pages, PROBED_PAGES * os_page()) == 0, "munmap");
    while (now_ns() - began_ns < 50000000)
        ;
    ticks_per_ns = (double)(ticks() - began) / (double)(now_ns() - began_ns);
    suspicious = fault / 2;
}

/* ----------------------------------------------------------------- histogram */

struct recorder {
    uint64_t ended; /* when the last call did */
    long faults, switches;
    bool counting; /* not while the live set is still growing */
    uint64_t calls[2][KINDS][CLASSES];
};

static unsigned class_of(uint64_t ns)
{
    if (ns < STEPS)
        return (unsigned)ns;
    unsigned power = 63 - (unsigned)__builtin_clzll(ns);
    unsigned class = (power - 3) * STEPS + (unsigned)(ns >> (power - 4) & (STEPS - 1));
    return class < CLASSES ? class : CLASSES - 1;
}

static uint64_t end_of(unsigned class)
{
    if (class < STEPS)
        return class;
    unsigned power = class / STEPS + 3;
    return ((uint64_t)(STEPS + class % STEPS + 1) << (power - 4)) - 1;
}

/* What the kernel counted since it was last asked. */
static enum kind ask(struct recorder *r)
{
    struct rusage usage;
    bench_check(getrusage(RUSAGE_THREAD, &usage) == 0, "getrusage");
    long faults = usage.ru_minflt + usage.ru_majflt;
    enum kind kind = usage.ru_nivcsw != r->switches ? PREEMPTED : faults != r->faults ? FAULT : PLAIN;
    r->faults = faults;
    r->switches = usage.ru_nivcsw;
    return kind;
}

/* Before a call. */
static inline uint64_t begin(struct recorder *r)
{
    uint64_t now = ticks();
    if (__builtin_expect(now - r->ended < suspicious, 1))
        return now;
    ask(r);
    return ticks();
}

static inline void end(struct recorder *r, uint64_t began, unsigned is_free)
{
    uint64_t now = ticks(), took = now - began;
    bool asks = took >= suspicious;
    enum kind kind = __builtin_expect(asks, 0) ? ask(r) : PLAIN;
    took = took < clock_cost ? 0 : took - clock_cost;
    if (r->counting)
        r->calls[is_free][kind][class_of((uint64_t)((double)took / ticks_per_ns))]++;
    r->ended = asks ? ticks() : now;
}

/* The histogram and the faults are what this program is for: both are tried first. A
 * fault between begin and end counts; one before does not, even if the call is slow.
 * Other threads may disturb some of the tries. */
static void check_recorder(void)
{
    static struct recorder r = {.counting = true};
    uint64_t faults = 0, plain = 0;
    for (unsigned class = 0; class < CLASSES; class++)
        bench_check(class_of(end_of(class)) == class, "the classes of the histogram do not fit");
    volatile unsigned char *pages = probe_pages();
    for (unsigned i = 0; i < PROBED_PAGES; i++) {
        bool before = i % 2 == 0;
        if (before)
            pages[i * os_page()] = 1;
        uint64_t began = begin(&r);
        pages[i * os_page()] = 2;
        while (before && ticks() - began < suspicious)
            ;
        end(&r, began, before);
    }
    bench_check(munmap((void *)(uintptr_t)pages, PROBED_PAGES * os_page()) == 0, "munmap");
    for (unsigned class = 0; class < CLASSES; class++) {
        faults += r.calls[0][FAULT][class];
        plain += r.calls[1][PLAIN][class];
    }
    bench_check(faults >= PROBED_PAGES / 4, "page faults are not noticed");
    bench_check(plain >= PROBED_PAGES / 4, "page faults are laid to the wrong call");
}

/* ---------------------------------------------------------------------- load */

struct block {
    uint32_t size;
    unsigned char bytes[];
};

struct worker {
    struct bench_rng rng;
    uint64_t replacements;
    struct recorder recorder;
};

static uint32_t sizes[SIZES];
static _Atomic(struct block *) shared[SHARED];

/* Nine of ten up to 256 bytes, the others up to 2 KiB, 32 KiB, 256 KiB; of these few. */
static void fill_sizes(void)
{
    struct bench_rng rng = bench_rng_for(1000);
    for (unsigned i = 0; i < SIZES; i++) {
        uint32_t kind = bench_below(&rng, 1000);
        uint32_t bound = kind < 900 ? 256 : kind < 985 ? 2048 : kind < 999 ? 32768 : 262144;
        sizes[i] = bench_between(&rng, (uint32_t)sizeof(struct block) + 4, bound);
    }
}

static struct block *new_block(struct recorder *r, uint32_t size)
{
    uint64_t began = begin(r);
    struct block *block = malloc(size);
    end(r, began, 0);
    bench_check(block != NULL, "malloc");
    block->size = size;
    for (size_t at = size - sizeof *block - 1; at < size; at -= STRIDE)
        block->bytes[at] = (unsigned char)size;
    return block;
}

/* Without a size afterwards, so that a block that was handed out twice ends once. */
static void end_block(struct recorder *r, struct block *block)
{
    if (block == NULL)
        return;
    bench_check(block->size != 0, "a block ends twice");
    bench_check(block->bytes[block->size - sizeof *block - 1] == (unsigned char)block->size, "a block has changed");
    block->size = 0;
    uint64_t began = begin(r);
    free(block);
    end(r, began, 1);
}

static void *work(void *argument)
{
    struct worker *w = argument;
    struct recorder *r = &w->recorder;
    struct block *slots[SLOTS] = {NULL};
    for (uint64_t i = 0; i < w->replacements + WARM_UP * SLOTS; i++) {
        uint32_t random = bench_next(&w->rng);
        struct block **place = &slots[random % SLOTS];
        r->counting = i >= WARM_UP * SLOTS;
        end_block(r, *place);
        *place = new_block(r, sizes[random / (UINT32_MAX / SIZES + 1)]);
        if (i % 8 == 0)
            *place = atomic_exchange(&shared[bench_below(&w->rng, SHARED)], *place);
    }
    r->counting = false;
    for (unsigned i = 0; i < SLOTS; i++)
        end_block(r, slots[i]);
    return NULL;
}

int main(int argc, char **argv)
{
    static struct worker workers[THREADS];
    uint64_t replacements = bench_work(argc, argv, 1500000);
    calibrate();
    check_recorder();
    fill_sizes();
    for (unsigned t = 0; t < THREADS; t++) {
        workers[t].rng = bench_rng_for(t);
        workers[t].replacements = replacements;
    }
    bench_run_threads(THREADS, work, workers, sizeof workers[0]);
    for (unsigned is_free = 0; is_free < 2; is_free++)
        for (unsigned kind = 0; kind < KINDS; kind++)
            for (unsigned class = 0; class < CLASSES; class++) {
                uint64_t calls = 0;
                for (unsigned t = 0; t < THREADS; t++)
                    calls += workers[t].recorder.calls[is_free][kind][class];
                if (calls != 0)
                    printf("%s %s %llu %llu\n", is_free ? "free" : "malloc", kind_names[kind], (unsigned long long)end_of(class),
                           (unsigned long long)calls);
            }
    return 0;
}
