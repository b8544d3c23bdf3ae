/* Bugs in guarded blocks: each must end at its first wrong access, with the right
 * signal, id, address, kind of access and distance, and the stacks of who allocated
 * and who freed. Each runs in a process of its own with the options of its row. */
#include "bulkhead.h"
#include "child.h"
#include "rows.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define OS_PAGE ((uintptr_t)sysconf(_SC_PAGESIZE))
#define OTHERS 100000

typedef unsigned char byte_t;

/* The compiler is not to reason about what is done with it. */
static byte_t *hidden(byte_t *p)
{
    __asm__ volatile("" : "+r"(p));
    return p;
}

static byte_t *take(size_t size)
{
    return hidden(bh_malloc(size));
}

/* A guarded block that touches the guard behind it, or the one before it. */
static byte_t *block_at(size_t size, bool behind)
{
    for (int i = 0; i < 1000; i++) {
        byte_t *p = take(size);
        if (p == NULL)
            break;
        if (((uintptr_t)p + (behind ? size : 0)) % OS_PAGE == 0)
            return p;
    }
    attack_broken("no such block");
}

static byte_t sink;

static void read_at(const byte_t *at, const char *id)
{
    attack_record(id, (uintptr_t)at);
    sink = *(const volatile byte_t *)at;
    attack_record("went on", 0);
}

static void write_at(byte_t *at, const char *id)
{
    attack_record(id, (uintptr_t)at);
    *(volatile byte_t *)at = 0;
    attack_record("went on", 0);
}

static void free_at(void *p, const char *id)
{
    attack_record(id, (uintptr_t)p);
    bh_free(p);
    attack_record("went on", 0);
}

static byte_t *freed(size_t size)
{
    byte_t *p = take(size);
    bh_free(hidden(p));
    return p;
}

static void others(void)
{
    for (int i = 0; i < OTHERS; i++)
        bh_free(take((size_t)(1 + i % 500)));
}

static void *free_there(void *p)
{
    bh_free(p);
    return NULL;
}

static byte_t *freed_there(size_t size)
{
    byte_t *p = take(size);
    pthread_t t;
    if (pthread_create(&t, NULL, free_there, p) != 0)
        attack_broken("pthread_create");
    pthread_join(t, NULL);
    return p;
}

static void over_write(void) { write_at(block_at(160, true) + 160, "guard-overflow"); }
static void over_read(void) { read_at(block_at(160, true) + 160, "guard-overflow"); }
static void over_odd(void) { write_at(block_at(33, true) + 33, "guard-overflow"); }
static void over_nul(void)
{
    byte_t *p = block_at(10, true);
    attack_record("guard-overflow", (uintptr_t)p + 10);
    strcpy((char *)p, "0123456789"); /* NOLINT: one too many is the bug */
    attack_record("went on", 0);
}
static void over_far(void) { write_at(block_at(160, true) + 160 + OS_PAGE - 1, "guard-overflow"); }
static void over_large(void) { read_at(block_at(131072, true) + 131072, "guard-overflow"); }
static void under_write(void) { write_at(block_at(160, false) - 1, "guard-underflow"); }
static void under_read(void) { read_at(block_at(160, false) - 64, "guard-underflow"); }
static void after_read(void) { read_at(freed(160) + 7, "use-after-free"); }
static void after_write(void) { write_at(freed(160) + 159, "use-after-free"); }
static void after_others(void)
{
    byte_t *p = freed(160);
    others();
    read_at(p + 7, "use-after-free");
}
static void after_there(void) { write_at(freed_there(160) + 7, "use-after-free"); }
static void after_realloc(void)
{
    byte_t *p = take(160);
    bh_free(bh_realloc(hidden(p), 320));
    read_at(p + 7, "use-after-free");
}
static void after_same_realloc(void)
{
    byte_t *p = take(160);
    if (bh_realloc(hidden(p), 160) == NULL)
        attack_broken("no memory");
    read_at(p + 7, "use-after-free");
}
static void after_heap(void)
{
    bh_heap_t *heap = bh_heap_new();
    byte_t *p = hidden(bh_heap_malloc(heap, 160));
    bh_heap_destroy(heap);
    write_at(p + 7, "use-after-free");
}
static void after_fork(void)
{
    byte_t *p = freed(160);
    if (fork() == 0)
        read_at(p + 7, "use-after-free");
    int status;
    wait(&status);
    if (WIFSIGNALED(status))
        raise(WTERMSIG(status));
}
static void twice(void) { free_at(freed(160), "double-free"); }
static void twice_others(void)
{
    byte_t *p = freed(160);
    others();
    free_at(p, "double-free");
}
static void twice_there(void) { free_at(freed_there(160), "double-free"); }
static void inside(void) { free_at(take(160) + 16, "invalid-free"); }
static void in_guard(void) { free_at(block_at(160, true) + 160, "invalid-free"); }
static void slack(void)
{
    byte_t *p = block_at(160, false);
    attack_record("overflow", (uintptr_t)p + 160);
    p[160] = 0;
    bh_free(p);
    attack_record("went on", 0);
}
static void front(void)
{
    byte_t *p = block_at(160, true);
    attack_record("underflow", (uintptr_t)p - 1);
    p[-1] = 0;
    bh_free(p);
    attack_record("went on", 0);
}
static void *twice_at_once(void *p)
{
    bh_free(p);
    return NULL;
}
static void race(void)
{
    pthread_t t[2];
    for (;;) {
        byte_t *p = take(160);
        attack_record("double-free", 0); /* the first is the mark */
        for (int i = 0; i < 2; i++)
            if (pthread_create(&t[i], NULL, twice_at_once, p) != 0)
                attack_broken("pthread_create");
        for (int i = 0; i < 2; i++)
            pthread_join(t[i], NULL);
        attack_record("went on", 0);
        return;
    }
}

#define RATE "guarded_sample_rate=1"
#define STACKS "allocated by thread "
#define FREED "freed by thread "
static const attack_row_t rows[] = {
    {"overflow by one byte, write", RATE, over_write, SIGSEGV, {"access: write", "0 bytes after its end", STACKS}},
    {"overflow by one byte, read", RATE, over_read, SIGSEGV, {"access: read", "0 bytes after its end", "requested 160"}},
    {"overflow by one byte, precise, odd size", RATE ":guarded_precise=1", over_odd, SIGSEGV, {"access: write", "0 bytes after its end", "requested 33"}},
    {"overflow by a NUL, precise", RATE ":guarded_precise=1", over_nul, SIGSEGV, {"access: write", "0 bytes after its end", "requested 10"}},
    {"overflow by 4096 bytes", RATE, over_far, SIGSEGV, {"access: write", "bytes after its end", STACKS}},
    {"overflow of a block of 128 KiB", RATE, over_large, SIGSEGV, {"access: read", "0 bytes after its end", "requested 131072"}},
    {"underflow by one byte, write", RATE, under_write, SIGSEGV, {"access: write", "1 bytes before it", STACKS}},
    {"underflow by 64 bytes, read", RATE, under_read, SIGSEGV, {"access: read", "64 bytes before it", "state: live"}},
    {"use after free, read", RATE, after_read, SIGSEGV, {"access: read", "7 bytes inside it", FREED}},
    {"use after free, write", RATE, after_write, SIGSEGV, {"access: write", "159 bytes inside it", STACKS}},
    {"use after free, stacks by frame pointer", RATE ":stacks=fp", after_read, SIGSEGV, {"access: read", "7 bytes inside it", FREED}},
    {"use after free, without stacks", RATE ":stacks=none", after_read, SIGSEGV, {"access: read", "7 bytes inside it", "state: free"}},
    {"use after free, after 100,000 others", RATE, after_others, SIGSEGV, {"access: read", "7 bytes inside it", "requested 160"}},
    {"use after free by another thread", RATE, after_there, SIGSEGV, {"access: write", "7 bytes inside it", FREED}},
    {"use after realloc", RATE, after_realloc, SIGSEGV, {"access: read", "7 bytes inside it", FREED}},
    {"use after the heap's end", RATE, after_heap, SIGSEGV, {"access: write", "7 bytes inside it", FREED}},
    {"use after free, in a forked child", RATE, after_fork, SIGSEGV, {"access: read", "7 bytes inside it", FREED}},
    {"double free", RATE, twice, SIGABRT, {"state: free", STACKS, FREED}},
    {"double free, after 100,000 others", RATE, twice_others, SIGABRT, {"state: free", STACKS, FREED}},
    {"double free, first by another thread", RATE, twice_there, SIGABRT, {"state: free", STACKS, FREED}},
    {"double free by two threads at once", RATE, race, SIGABRT, {"guarded block", STACKS, STACKS}},
    {"free of an address inside", RATE, inside, SIGABRT, {"16 bytes inside it", "state: live", STACKS}},
    {"free of an address in the guard", RATE, in_guard, SIGABRT, {"0 bytes after its end", "state: live", STACKS}},
    {"overflow without a guard, at free", RATE, slack, SIGABRT, {"0 bytes after its end", STACKS, "requested 160"}},
    {"underflow without a guard, at free", RATE, front, SIGABRT, {"1 bytes before it", STACKS, "requested 160"}},
    {"use after free, hardened, one of the first", "profile=hardened", after_read, SIGSEGV, {"access: read", "7 bytes inside it", "state: free"}},
    {"overflow, fuzz", "profile=fuzz", over_write, SIGABRT, {"access: write", "0 bytes after its end", "requested 160"}},
    {"use after free, fuzz, with stacks", "profile=fuzz:stacks=unwind", after_write, SIGABRT, {"access: write", "159 bytes inside it", FREED}},
    {"use after realloc to the same size, fuzz", "profile=fuzz", after_same_realloc, SIGABRT, {"access: read", "7 bytes inside it", "state: free"}},
    {"overflow, guards by mprotect", RATE ":guard=mprotect", over_write, SIGSEGV, {"access: write", "0 bytes after its end", STACKS}},
    {"use after free, guards by mprotect", RATE ":guard=mprotect", after_write, SIGSEGV, {"access: write", "159 bytes inside it", FREED}},
};

int main(int argc, char **argv)
{
    return attack_rows("guarded", rows, sizeof rows / sizeof rows[0], argc, argv);
}
