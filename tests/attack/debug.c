/* What profile debug adds: releases by a function of the wrong kind, writes to freed
 * blocks that leave zeros, the stacks of blocks that are not guarded, leaks. Correct
 * programs of the same shapes print nothing. Each row runs in a process of its own. */
#include "api/kinds.h"
#include "bulkhead.h"
#include "child.h"
#include "rows.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned char byte_t;

/* The compiler is not to reason about what is done with it. */
static byte_t *hidden(void *p)
{
    __asm__ volatile("" : "+r"(p));
    return p;
}

/* ---------------------------------------------------------------------- kinds */

static void release(void *p, void (*by)(void *p))
{
    p = hidden(p);
    attack_record("kind-mismatch", (uintptr_t)p);
    by(p);
    attack_record("went on", 0);
}

static void by_realloc(void *p)
{
    p = bh_realloc(p, 1000);
    (void)p;
}

static void by_sized(void *p)
{
    bhi_delete_sized(p, 100);
}

static void *free_there(void *p)
{
    bh_free(p);
    return NULL;
}

/* Of one element of the array: neither kind nor size fits. */
static void by_sized_one(void *p)
{
    bhi_delete_sized(p, 4);
}

static void by_other(void *p)
{
    pthread_t t;
    if (pthread_create(&t, NULL, free_there, p) != 0)
        attack_broken("pthread_create");
    pthread_join(t, NULL);
}

static void malloc_delete(void) { release(bh_malloc(100), bhi_delete); }
static void malloc_delete_array(void) { release(bh_malloc(100), bhi_delete_array); }
static void malloc_sized_delete(void) { release(bh_malloc(100), by_sized); }
static void calloc_delete(void) { release(bh_calloc(10, 10), bhi_delete); }
static void aligned_delete(void) { release(bh_aligned_alloc(64, 100), bhi_delete); }
static void new_free(void) { release(bhi_new(100), bh_free); }
static void new_free_there(void) { release(bhi_new(100), by_other); }
static void new_realloc(void) { release(bhi_new(100), by_realloc); }
static void new_delete_array(void) { release(bhi_new(100), bhi_delete_array); }
static void array_delete(void) { release(bhi_new_array(100), bhi_delete); }
static void array_sized_delete(void) { release(bhi_new_array(100), by_sized_one); }
static void array_free(void) { release(bhi_new_array(100), bh_free); }
static void array_free_large(void) { release(bhi_new_array(1000000), bh_free); }
static void array_aligned_free(void) { release(bhi_new_array_aligned(64, 100), bh_free); }

static void report_goes_on(void)
{
    attack_record("mark", 0);
    bh_free(hidden(bhi_new(100)));
    void *p = bh_realloc(hidden(bhi_new(100)), 1000);
    bh_free(p);
}

/* Everything that a correct program may do, of all sizes. */
static void correct(void)
{
    attack_record("nothing", 0);
    for (size_t size = 0; size < 400000; size += size < 300 ? 1 : size / 3) {
        bhi_delete(hidden(bhi_new(size)));
        bhi_delete_array(hidden(bhi_new_array(size)));
        bhi_delete_sized(hidden(bhi_new(size)), size);
        bhi_delete_array_sized(hidden(bhi_new_array(size)), size);
        bhi_delete_aligned_sized(hidden(bhi_new_aligned(128, size)), 128, size);
        bhi_delete(hidden(bhi_as_new(hidden(bh_malloc(size)))));
        bh_free(hidden(bh_aligned_alloc(64, size)));
        bh_free(hidden(bh_zalloc(size)));
        void *p = NULL;
        bh_free(bh_posix_memalign(&p, 4096, size) == 0 ? hidden(p) : NULL);
        p = bh_realloc(hidden(bh_realloc(hidden(bh_aligned_alloc(64, size)), size + 7)), size / 2 + 1);
        bh_free_sized(hidden(p), size / 2 + 1);
        bh_free(hidden(bh_strdup("text")));
    }
    by_other(hidden(bh_malloc(100)));
    bh_heap_t *heap = bh_heap_new();
    for (size_t size = 1; size < 300000; size *= 2)
        (void)!bh_heap_malloc(heap, size);
    bh_heap_destroy(heap);
    bh_free(NULL);
    bhi_delete(NULL);
}

/* ------------------------------------------------------- blocks in pages, stacks */

static void twice(void)
{
    byte_t *p = hidden(bh_malloc(160));
    bh_free(p);
    attack_record("double-free", (uintptr_t)p);
    bh_free(hidden(p));
    attack_record("went on", 0);
}

static void over(void)
{
    byte_t *p = hidden(bh_malloc(160));
    attack_record("overflow", (uintptr_t)p + 160);
    p[160] ^= 1;
    bh_free(hidden(p));
    attack_record("went on", 0);
}

/* A zero where a pattern was: in memory that is zero it would leave no trace. */
static void zero_after_free(void)
{
    byte_t *p = hidden(bh_malloc(160));
    bh_free(p);
    attack_record("write-after-free", (uintptr_t)p + 16);
    p[16] = 0;
    (void)bh_verify();
    attack_record("went on", 0);
}

static void zeros_after_free(void)
{
    byte_t *p = hidden(bh_malloc(160));
    bh_free(p);
    attack_record("write-after-free", (uintptr_t)p);
    memset(p, 0, 160);
    exit(0);
}

/* ---------------------------------------------------------------------- leaks */

static void *volatile root;

__attribute__((noinline)) static void wipe_stack(void)
{
    volatile byte_t old[16384];
    for (size_t i = 0; i < sizeof old; i++)
        old[i] = 0;
}

__attribute__((noinline)) static void *new_node(void *next)
{
    void **node = (void **)(void *)hidden(bhi_new(40));
    *node = next;
    return node;
}

__attribute__((noinline)) static void leak_large(void)
{
    root = hidden(bh_malloc(300000));
}

/* Ten nodes, each of which only the next one leads to, and two large blocks. From one
 * place each, however the loop is compiled. */
__attribute__((noinline)) static void leak_list(void)
{
    void *list = NULL;
    for (volatile int i = 0; i < 10; i++)
        list = new_node(list);
    for (volatile int i = 0; i < 2; i++)
        leak_large();
    root = NULL;
}

static void leaks(void)
{
    attack_record("mark", 0);
    leak_list();
    wipe_stack();
}

static void leaks_asked_for(void)
{
    attack_record("mark", 0);
    leak_list();
    wipe_stack();
    if (bh_report_leaks() != 12)
        abort();
}

static void leaks_by_signal(void)
{
    attack_record("mark", 0);
    leak_list();
    wipe_stack();
    raise(SIGUSR2);
    bh_free(hidden(bh_malloc(1)));
}

/* Reached by data, by a word inside, by another block's inside, from a thread's stack
 * and its registers, from thread-local memory, from memory that the program mapped. */
static _Thread_local void *volatile local;
static _Atomic(int) begun;

static void *hold(void *arg)
{
    (void)arg;
    local = bh_malloc(30);
    register byte_t *own = hidden(bh_malloc(31));
    byte_t *volatile on_stack = bh_malloc(32);
    wipe_stack(); /* of copies that calls have left */
    begun++;
    for (;;)
        __asm__ volatile("" : "+r"(own) : "r"(on_stack));
    return NULL;
}

static void reach(void)
{
    void **blocks = bh_malloc(1000 * sizeof *blocks);
    for (size_t i = 0; i < 1000; i++)
        blocks[i] = (byte_t *)bh_malloc(i * 40 % 5000 + 1) + i * 40 % 5000;
    root = blocks + 7;
    pthread_t t;
    for (int i = 0; i < 3; i++)
        if (pthread_create(&t, NULL, hold, NULL) != 0)
            attack_broken("pthread_create");
    while (begun < 3)
        sched_yield();
    wipe_stack();
}

static void reached(void)
{
    attack_record("nothing", 0);
    reach();
}

static void no_leaks_asked_for(void)
{
    attack_record("mark", 0);
    reach();
    if (bh_report_leaks() != 0)
        abort();
    _exit(0);
}

#define DEBUG "profile=debug"
#define PAGES DEBUG ":guarded_sample_rate=0:guarded_first=0"
#define GUARDED DEBUG ":guarded_sample_rate=1"
#define SECURE "mismatch=abort:guarded_sample_rate=1"
#define HARDENED "profile=hardened:mismatch=abort:guarded_first=0"
#define STACK "  allocated:\n"
static const attack_row_t rows[] = {
    {"malloc, delete", PAGES, malloc_delete, SIGABRT, {"allocated by malloc, released by delete;", "requested 100", STACK, "guarding such blocks: BULKHEAD_OPTIONS=profile=debug:guarded_sample_rate=1:"}},
    {"malloc, delete[]", PAGES, malloc_delete_array, SIGABRT, {"allocated by malloc, released by delete[];", STACK}},
    {"malloc, sized delete", PAGES, malloc_sized_delete, SIGABRT, {"allocated by malloc, released by delete;", STACK}},
    {"calloc, delete", PAGES, calloc_delete, SIGABRT, {"allocated by malloc, released by delete;", STACK}},
    {"aligned_alloc, delete", PAGES, aligned_delete, SIGABRT, {"allocated by aligned_alloc, released by delete;", STACK}},
    {"new, free", PAGES, new_free, SIGABRT, {"allocated by new, released by free;", STACK}},
    {"new, free by another thread", PAGES, new_free_there, SIGABRT, {"allocated by new, released by free;", STACK}},
    {"new, realloc", PAGES, new_realloc, SIGABRT, {"allocated by new, released by realloc;", STACK}},
    {"new, delete[]", PAGES, new_delete_array, SIGABRT, {"allocated by new, released by delete[];", STACK}},
    {"new[], delete", PAGES, array_delete, SIGABRT, {"allocated by new[], released by delete;", STACK}},
    {"new[], sized delete of one", PAGES, array_sized_delete, SIGABRT, {"allocated by new[], released by delete;", STACK}},
    {"new[], sized delete of one, guarded", GUARDED, array_sized_delete, SIGABRT, {"allocated by new[], released by delete\n"}},
    {"new[], free", PAGES, array_free, SIGABRT, {"allocated by new[], released by free;", STACK}},
    {"new[], free, large", PAGES, array_free_large, SIGABRT, {"allocated by new[], released by free", "requested 1000000", STACK}},
    {"new[], aligned, free", PAGES, array_aligned_free, SIGABRT, {"allocated by new[], released by free;", STACK}},
    {"new[], free, guarded", GUARDED, array_free, SIGABRT, {"allocated by new[], released by free\n", "allocated by thread "}},
    {"malloc, delete, guarded", GUARDED, malloc_delete, SIGABRT, {"allocated by malloc, released by delete\n", "guarded_min=100:guarded_max=100\n"}},
    {"new, realloc, guarded", GUARDED, new_realloc, SIGABRT, {"allocated by new, released by realloc\n"}},
    {"new[], delete, guarded in secure", SECURE, array_delete, SIGABRT, {"allocated by new[], released by delete\n"}},
    {"new, free, guarded in secure", SECURE, new_free, SIGABRT, {"allocated by new, released by free\n"}},
    {"new, free, in hardened", HARDENED, new_free, SIGABRT, {"allocated by new, released by free;"}},
    {"mismatch=report goes on", PAGES ":mismatch=report:leaks=0", report_goes_on, 0, {"released by free;", "released by realloc;"}},
    {"mismatch=ignore", PAGES ":mismatch=ignore", report_goes_on, 0, {""}},
    {"nothing but correct calls", PAGES, correct, 0, {NULL}},
    {"nothing but correct calls, guarded", GUARDED, correct, 0, {NULL}},
    {"nothing but correct calls, some guarded", DEBUG ":guarded_sample_rate=3", correct, 0, {NULL}},
    {"nothing but correct calls, in secure", SECURE, correct, 0, {NULL}},
    {"nothing but correct calls, in hardened", HARDENED, correct, 0, {NULL}},
    {"double free, not guarded", PAGES, twice, SIGABRT, {"state: free", "reported here by thread ", STACK, "  freed:\n"}},
    {"overflow, not guarded", PAGES, over, SIGABRT, {"160 bytes inside it", "requested 160", STACK, "profile=debug"}},
    {"a zero written after free", PAGES, zero_after_free, SIGABRT, {"16 bytes inside it", STACK, "  freed:\n"}},
    {"only zeros written after free, at exit", PAGES, zeros_after_free, SIGABRT, {"the address is its start", STACK, "  freed:\n"}},
    {"leaks at exit", PAGES, leaks, 0, {"LEAK: 2 blocks, 600000 bytes, average 300000, allocated by malloc:", "LEAK: 10 blocks, 400 bytes, average 40, allocated by new:", "LEAKS: 12 blocks, 600400 bytes, allocated in 2 ways\n"}},
    {"leaks at exit, guarded", GUARDED, leaks, 0, {"average 300000, allocated by malloc:", " 40, allocated by new:", "LEAKS: 12 blocks, 600400 bytes, allocated in "}},
    {"leaks at exit, as JSON", PAGES ":report=json", leaks, 0, {"{\"bulkhead\":\"LEAK\",\"count\":10,\"bytes\":400,\"average\":40,\"allocated_by\":\"new\",\"alloc_stack\":[", "{\"bulkhead\":\"LEAKS\",\"count\":12,"}},
    {"leaks without stacks", PAGES ":stacks=none", leaks, 0, {"LEAK: 10 blocks, 400 bytes, average 40, allocated by new, stack not recorded\n"}},
    {"leaks when asked for", PAGES ":leaks=0", leaks_asked_for, 0, {"LEAKS: 12 blocks"}},
    {"leaks when asked for, in hardened", "profile=hardened:leak_signal=12", leaks_asked_for, 0, {"LEAKS: 12 blocks"}},
    {"leaks by a signal", PAGES ":leaks=0:leak_signal=12", leaks_by_signal, 0, {"LEAKS: 12 blocks"}},
    {"no leaks: all are reached", PAGES, reached, 0, {NULL}},
    {"no leaks: all are reached, guarded", GUARDED, reached, 0, {NULL}},
    {"no leaks, when asked for", PAGES, no_leaks_asked_for, 0, {"LEAKS: 0 blocks, 0 bytes"}},
};

int main(int argc, char **argv)
{
    return attack_rows("debug", rows, sizeof rows / sizeof rows[0], argc, argv);
}
