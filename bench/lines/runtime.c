/* In place of the thread sanitizer's library: what instrumented code calls at each
 * access to memory, and the machine that counts them (machine.h).
 *
 * The interface is that of LLVM's tsan_interface.h and tsan_interface_atomic.h. All
 * atomic operations are sequentially consistent here. This file is not instrumented,
 * and must not call what is wrapped below. */
#include "machine.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define NOBODY (-1)

struct line {
    uintptr_t number; /* address >> shift; 0: no line, an empty place in the directory */
    uint64_t holders; /* processors that have a copy */
    uint64_t past;    /* and those that ever had one */
    uint64_t reads, writes;
    int owner; /* the one that has modified it, and is the only holder, or NOBODY */
};

static struct line *directory; /* open addressing; a power of two of places */
static size_t directory_bits, directory_used;
static unsigned shift;

#define PLACES_BITS 14
static struct machine_moves places[1u << PLACES_BITS]; /* the same, by address */
static size_t places_used;

static struct machine_counts counts[MACHINE_PROCESSORS][MACHINE_DOINGS];
static int processor = NOBODY;
static enum machine_doing doing;
static uint64_t operations; /* since the start, of all processors */
static unsigned processors;
static atomic_flag busy = ATOMIC_FLAG_INIT;

static __thread uintptr_t stack_low, stack_high;

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "lines: %s\n", what);
    _Exit(1);
}

static void *pages(size_t size)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        fail("no memory");
    return at;
}

static size_t hash(uintptr_t key, size_t bits)
{
    return (size_t)((uint64_t)key * 0x9e3779b97f4a7c15u >> (64 - bits));
}

static struct line *find(uintptr_t number)
{
    size_t mask = ((size_t)1 << directory_bits) - 1, i = hash(number, directory_bits);
    while (directory[i].number != 0 && directory[i].number != number)
        i = (i + 1) & mask;
    return &directory[i];
}

static void grow(void)
{
    struct line *old = directory;
    size_t n = (size_t)1 << directory_bits;
    directory_bits++;
    directory = pages(sizeof *directory << directory_bits);
    for (size_t i = 0; i < n; i++)
        if (old[i].number != 0)
            *find(old[i].number) = old[i];
    munmap(old, n * sizeof *old);
}

static struct line *line_of(uintptr_t number)
{
    struct line *line = find(number);
    if (line->number != 0)
        return line;
    if (++directory_used > (size_t)1 << (directory_bits - 1)) {
        grow();
        line = find(number);
    }
    line->number = number;
    line->owner = NOBODY;
    return line;
}

static struct machine_moves *place_of(uintptr_t address)
{
    size_t i = hash(address, PLACES_BITS);
    while (places[i].address != 0 && places[i].address != address)
        i = (i + 1) % (1u << PLACES_BITS);
    if (places[i].address == 0) {
        if (++places_used > 1u << (PLACES_BITS - 1))
            fail("too many places");
        places[i].address = address;
    }
    return &places[i];
}

static void touch(struct line *line, bool write, uintptr_t from)
{
    struct machine_counts *count = &counts[processor][doing];
    uint64_t own = (uint64_t)1 << processor;
    bool has = (line->holders & own) != 0;
    if (line->holders == 0) {
        count->cold++;
    } else if (write && line->holders != own) {
        struct machine_moves *place = place_of(from);
        count->writes++;
        line->writes++;
        place->writes++;
    } else if (!has && (line->owner != NOBODY || (line->past & own) != 0)) {
        struct machine_moves *place = place_of(from);
        count->reads++;
        line->reads++;
        place->reads++;
    } else if (!has) {
        count->fills++;
    }
    line->past |= own;
    line->holders = write ? own : line->holders | own;
    if (write)
        line->owner = processor;
    else if (!has)
        line->owner = NOBODY;
}

static void access_to(const volatile void *p, size_t size, bool write, void *from)
{
    uintptr_t at = (uintptr_t)p;
    if (processor == NOBODY || size == 0 || at - stack_low < stack_high - stack_low)
        return;
    if (atomic_flag_test_and_set(&busy))
        fail("two processors run at once");
    for (uintptr_t number = at >> shift; number <= (at + size - 1) >> shift; number++)
        touch(line_of(number), write, (uintptr_t)from);
    atomic_flag_clear(&busy);
}

/* ---------------------------------------------------------------- machine.h */

void machine_start(unsigned n, unsigned line_shift)
{
    processors = n;
    shift = line_shift;
    directory_bits = 16;
    directory = pages(sizeof *directory << directory_bits);
}

void machine_thread(void)
{
    pthread_attr_t attributes;
    void *low;
    size_t size;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0 || pthread_attr_getstack(&attributes, &low, &size) != 0)
        fail("no bounds of the stack");
    pthread_attr_destroy(&attributes);
    stack_low = (uintptr_t)low;
    stack_high = stack_low + size;
}

void machine_run(int on)
{
    processor = on;
    doing = MACHINE_END;
}

void machine_begin(enum machine_doing what)
{
    doing = what;
    if (processor == NOBODY)
        return;
    counts[processor][doing].operations++;
    operations++;
}

void machine_count(void)
{
    for (unsigned p = 0; p < MACHINE_PROCESSORS; p++)
        for (unsigned d = 0; d < MACHINE_DOINGS; d++)
            counts[p][d] = (struct machine_counts){0};
    for (size_t i = 0; i < (size_t)1 << directory_bits; i++)
        directory[i].reads = directory[i].writes = 0;
    for (size_t i = 0; i < 1u << PLACES_BITS; i++)
        places[i].reads = places[i].writes = 0;
}

struct machine_counts machine_counts(unsigned p, enum machine_doing what)
{
    return counts[p][what];
}

static int by_moves(const void *a, const void *b)
{
    const struct machine_moves *x = a, *y = b;
    uint64_t more = y->reads + y->writes, less = x->reads + x->writes;
    if (more != less)
        return more > less ? 1 : -1;
    return x->address < y->address ? -1 : 1;
}

static size_t sorted(struct machine_moves *moves, size_t n, const struct machine_moves **out)
{
    qsort(moves, n, sizeof *moves, by_moves);
    *out = moves;
    return n;
}

size_t machine_lines(const struct machine_moves **lines)
{
    struct machine_moves *all = pages((directory_used + 1) * sizeof *all);
    size_t n = 0;
    for (size_t i = 0; i < (size_t)1 << directory_bits; i++)
        if (directory[i].reads + directory[i].writes > 0)
            all[n++] = (struct machine_moves){directory[i].number << shift, directory[i].reads, directory[i].writes};
    return sorted(all, n, lines);
}

size_t machine_places(const struct machine_moves **out)
{
    struct machine_moves *all = pages((places_used + 1) * sizeof *all);
    size_t n = 0;
    for (size_t i = 0; i < 1u << PLACES_BITS; i++)
        if (places[i].reads + places[i].writes > 0)
            all[n++] = places[i];
    return sorted(all, n, out);
}

/* ------------------------------------------------- what the allocator calls */

void machine_kernel_call(void);
void machine_kernel_call(void)
{
    if (processor != NOBODY)
        counts[processor][doing].kernel++;
}

/* The clock goes by operations: with that of the machine the simulation runs on, hundreds
 * of times as slow, what waits for milliseconds would come hundreds of times as often. */
int __real_clock_gettime(clockid_t clock, struct timespec *time);
int __wrap_clock_gettime(clockid_t clock, struct timespec *time);
int __wrap_clock_gettime(clockid_t clock, struct timespec *time)
{
    if (processor == NOBODY)
        return __real_clock_gettime(clock, time);
    uint64_t ns = operations * MACHINE_OPERATION_NS / processors;
    *time = (struct timespec){1000 + (time_t)(ns / 1000000000), (long)(ns % 1000000000)};
    return 0;
}

#define HERE __builtin_return_address(0)

void *__real_memset(void *to, int byte, size_t n);
void *__real_memcpy(void *to, const void *from, size_t n);
void *__real_memmove(void *to, const void *from, size_t n);
void *__wrap_memset(void *to, int byte, size_t n);
void *__wrap_memcpy(void *to, const void *from, size_t n);
void *__wrap_memmove(void *to, const void *from, size_t n);

#define MEMORY_FUNCTIONS(prefix)                                                                                       \
    void *prefix##memset(void *to, int byte, size_t n)                                                                 \
    {                                                                                                                  \
        access_to(to, n, true, HERE);                                                                                  \
        return __real_memset(to, byte, n);                                                                             \
    }                                                                                                                  \
    void *prefix##memcpy(void *to, const void *from, size_t n)                                                         \
    {                                                                                                                  \
        access_to(from, n, false, HERE);                                                                               \
        access_to(to, n, true, HERE);                                                                                  \
        return __real_memcpy(to, from, n);                                                                             \
    }                                                                                                                  \
    void *prefix##memmove(void *to, const void *from, size_t n)                                                        \
    {                                                                                                                  \
        access_to(from, n, false, HERE);                                                                               \
        access_to(to, n, true, HERE);                                                                                  \
        return __real_memmove(to, from, n);                                                                            \
    }

MEMORY_FUNCTIONS(__wrap_)
MEMORY_FUNCTIONS(__tsan_)

void __tsan_init(void)
{
}

void __tsan_func_entry(void *caller)
{
    (void)caller;
}

void __tsan_func_exit(void)
{
}

void __tsan_atomic_thread_fence(int order)
{
    (void)order;
    atomic_thread_fence(memory_order_seq_cst);
}

void __tsan_atomic_signal_fence(int order)
{
    (void)order;
    atomic_signal_fence(memory_order_seq_cst);
}

void __tsan_read_range(void *p, size_t size)
{
    access_to(p, size, false, HERE);
}

void __tsan_write_range(void *p, size_t size)
{
    access_to(p, size, true, HERE);
}

#define ACCESS(name, size)                                                                                             \
    void __tsan_##name##read##size(void *p)                                                                            \
    {                                                                                                                  \
        access_to(p, size, false, HERE);                                                                               \
    }                                                                                                                  \
    void __tsan_##name##write##size(void *p)                                                                           \
    {                                                                                                                  \
        access_to(p, size, true, HERE);                                                                                \
    }
#define ACCESSES(name) ACCESS(name, 1) ACCESS(name, 2) ACCESS(name, 4) ACCESS(name, 8) ACCESS(name, 16)

ACCESSES()
ACCESSES(unaligned_)
ACCESSES(volatile_)
ACCESSES(unaligned_volatile_)


#define FETCH(bits, name, builtin)                                                                                     \
    uint##bits##_t __tsan_atomic##bits##_##name(volatile uint##bits##_t *p, uint##bits##_t value, int order)           \
    {                                                                                                                  \
        (void)order;                                                                                                   \
        access_to(p, bits / 8, true, HERE);                                                                            \
        return builtin(p, value, __ATOMIC_SEQ_CST);                                                                    \
    }
#define SWAP(bits, name)                                                                                               \
    int __tsan_atomic##bits##_compare_exchange_##name(volatile uint##bits##_t *p, uint##bits##_t *expected,            \
                                                      uint##bits##_t value, int order, int failure)                    \
    {                                                                                                                  \
        (void)order, (void)failure;                                                                                    \
        access_to(p, bits / 8, true, HERE);                                                                            \
        return __atomic_compare_exchange_n(p, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);             \
    }
#define ATOMICS(bits)                                                                                                  \
    uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t *p, int order)                             \
    {                                                                                                                  \
        (void)order;                                                                                                   \
        access_to(p, bits / 8, false, HERE);                                                                           \
        return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                                   \
    }                                                                                                                  \
    void __tsan_atomic##bits##_store(volatile uint##bits##_t *p, uint##bits##_t value, int order)                      \
    {                                                                                                                  \
        (void)order;                                                                                                   \
        access_to(p, bits / 8, true, HERE);                                                                            \
        __atomic_store_n(p, value, __ATOMIC_SEQ_CST);                                                                  \
    }                                                                                                                  \
    uint##bits##_t __tsan_atomic##bits##_compare_exchange_val(volatile uint##bits##_t *p, uint##bits##_t expected,     \
                                                              uint##bits##_t value, int order, int failure)            \
    {                                                                                                                  \
        (void)order, (void)failure;                                                                                    \
        access_to(p, bits / 8, true, HERE);                                                                            \
        __atomic_compare_exchange_n(p, &expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                   \
        return expected;                                                                                               \
    }                                                                                                                  \
    SWAP(bits, strong)                                                                                                 \
    SWAP(bits, weak)                                                                                                   \
    FETCH(bits, exchange, __atomic_exchange_n)                                                                         \
    FETCH(bits, fetch_add, __atomic_fetch_add)                                                                         \
    FETCH(bits, fetch_sub, __atomic_fetch_sub)                                                                         \
    FETCH(bits, fetch_and, __atomic_fetch_and)                                                                         \
    FETCH(bits, fetch_or, __atomic_fetch_or)                                                                           \
    FETCH(bits, fetch_xor, __atomic_fetch_xor)                                                                         \
    FETCH(bits, fetch_nand, __atomic_fetch_nand)

ATOMICS(8)
ATOMICS(16)
ATOMICS(32)
ATOMICS(64)
