/* See workload.h. */
#include "workload.h"

#include "bulkhead.h"
#include "invariants.h"
#include "meta/arena.h"
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static bool may_refuse;

__attribute__((format(printf, 1, 2))) _Noreturn static void finding(const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line - 1, format, args);
    va_end(args);
    line[n] = '\n';
    (void)!write(2, line, (size_t)n + 1);
    _exit(WORKLOAD_FINDING);
}

/* ------------------------------------------------------------------ blocks */

typedef struct block {
    unsigned char *at;
    size_t size;
    unsigned tag;
} block_t;

#define WORKLOAD_ROUNDS 1
#define STRIDE 1024 /* large blocks are marked here and there: one mark in each OS page */

static void fill(block_t *b)
{
    size_t edge = b->size < 4096 ? b->size : 64;
    memset(b->at, (int)b->tag, edge);
    memset(b->at + b->size - edge, (int)b->tag, edge);
    for (size_t i = 0; i < b->size; i += STRIDE)
        b->at[i] = (unsigned char)b->tag;
}

static bool intact(const block_t *b, size_t size)
{
    size_t edge = size < 64 ? size : 64;
    bool ok = unit_is(b->at, edge, (int)b->tag) && (size != b->size || unit_is(b->at + size - edge, edge, (int)b->tag));
    for (size_t i = 0; i < size; i += STRIDE)
        ok = ok && b->at[i] == (unsigned char)b->tag;
    return ok;
}

/* Every byte of a small block; of a large one what fill() may have written. */
static bool zero(const unsigned char *p, size_t size)
{
    if (size <= 8192)
        return unit_is(p, size, 0);
    bool ok = unit_is(p, 4096, 0) && unit_is(p + size - 64, 64, 0);
    for (size_t i = 0; i + 8 <= size; i += STRIDE / 2)
        ok = ok && unit_is(p + i, 8, 0);
    return ok;
}

static void refused(const void *p, size_t size)
{
    if (p != NULL)
        return;
    if (errno != ENOMEM)
        finding("NULL for %zu bytes with errno %d", size, errno);
    if (!may_refuse)
        finding("NULL for %zu bytes where nothing is short", size);
}

enum { MALLOC, ZALLOC, CALLOC, ALIGNED_SMALL, ALIGNED_PAGE, ALIGNED_LARGE, ALIGNED_ZERO, WAYS };

static void take(block_t *b, bh_heap_t *heap, unsigned way, size_t size)
{
    static _Atomic(unsigned) tags;
    size_t align = way == ALIGNED_SMALL ? 64 : way == ALIGNED_LARGE ? (size_t)1 << (16 + size % 8) : 4096;
    errno = 77;
    b->size = size;
    b->tag = (atomic_fetch_add(&tags, 1) % 255) + 1;
    switch (way) {
    case MALLOC: b->at = heap != NULL ? bh_heap_malloc(heap, size) : bh_malloc(size); break;
    case ZALLOC: b->at = heap != NULL ? bh_heap_zalloc(heap, size) : bh_zalloc(size); break;
    case CALLOC: b->at = heap != NULL ? bh_heap_calloc(heap, 1, size) : bh_calloc(1, size); break;
    case ALIGNED_ZERO: b->at = heap != NULL ? bh_heap_aligned_zalloc(heap, align, size) : bh_aligned_zalloc(align, size); break;
    default: b->at = heap != NULL ? bh_heap_aligned_alloc(heap, align, size) : bh_aligned_alloc(align, size); break;
    }
    refused(b->at, size);
    if (b->at == NULL)
        return;
    if (errno != 77)
        finding("errno %d after success", errno);
    if (way >= ALIGNED_SMALL && (uintptr_t)b->at % align != 0)
        finding("%p is not aligned to %zu", (void *)b->at, align);
    if ((way == ZALLOC || way == CALLOC || way == ALIGNED_ZERO) && !zero(b->at, size))
        finding("%zu bytes are not zero", size);
    fill(b);
}

static void give(block_t *b)
{
    if (b->at == NULL)
        return;
    if (!intact(b, b->size))
        finding("contents of %zu bytes are lost", b->size);
    errno = 77;
    bh_free(b->at);
    if (errno != 77)
        finding("free changed errno to %d", errno);
    b->at = NULL;
}

static void resize(block_t *b, size_t size)
{
    if (b->at == NULL)
        return;
    unsigned char *p = bh_realloc(b->at, size);
    refused(p, size);
    size_t kept = p != NULL && size < b->size ? size : b->size;
    if (p != NULL)
        b->at = p;
    if (!intact(b, kept))
        finding("realloc from %zu to %zu lost contents", b->size, size);
    if (p != NULL) {
        b->size = size;
        fill(b);
    }
}

/* ------------------------------------------------------------------- steps */

static const size_t sizes[] = {0, 1, 8, 24, 100, 500, 1024, 1500, 4000, 8192, 9000, 20000, 33000, 131072, 140000, 700000, 5000000};
#define SIZES (sizeof sizes / sizeof sizes[0])
#define BLOCKS (SIZES * WAYS)

static size_t copies(size_t size)
{
    return size <= 1500 ? 6 : size <= 33000 ? 3 : 1;
}

/* Large blocks in one way only each: they are what takes the time. */
static bool wanted(size_t size, unsigned way)
{
    return size <= 140000 || way == ZALLOC || (way == ALIGNED_LARGE && size < 1000000);
}

static void take_all(block_t *b, bh_heap_t *heap)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        b[i].at = NULL;
        if (wanted(sizes[i / WAYS], (unsigned)(i % WAYS)))
            take(&b[i], heap, (unsigned)(i % WAYS), sizes[i / WAYS]);
    }
}

typedef struct share {
    block_t *blocks;
    size_t from, step;
} share_t;

static void *give_share(void *arg)
{
    share_t *s = arg;
    for (size_t i = s->from; i < BLOCKS; i += s->step)
        give(&s->blocks[i]);
    return NULL;
}

/* A thread that allocates, frees what another has, and leaves blocks behind. */
static void *live_and_end(void *arg)
{
    block_t *left = arg;
    for (size_t i = 0; i < SIZES; i++) {
        block_t own[6];
        size_t n = copies(sizes[i]);
        for (size_t k = 0; k < n; k++)
            take(&own[k], NULL, (unsigned)(k % WAYS), sizes[i]);
        take(&left[i], NULL, ZALLOC, sizes[i]);
        for (size_t k = 0; k < n; k++)
            give(&own[k]);
    }
    bh_heap_t *heap = bh_heap_new();
    refused(heap, 0);
    if (heap != NULL)
        take(&left[SIZES], heap, MALLOC, 300);
    else
        left[SIZES].at = NULL;
    return NULL;
}

/* Threads that cannot be made are not what is tested. */
static void run_thread(void *(*body)(void *), void *arg)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, body, arg) == 0)
        pthread_join(thread, NULL);
    else
        body(arg);
}

static void heaps(void)
{
    static block_t b[BLOCKS];
    for (int round = 0; round < 2; round++) {
        bh_heap_t *heap = bh_heap_new();
        refused(heap, 0);
        if (heap == NULL)
            continue;
        take_all(b, heap);
        for (size_t i = 0; i < BLOCKS; i += 3)
            give(&b[i]);
        if (round == 0) {
            bh_heap_destroy(heap);
        } else {
            bh_heap_delete(heap);
            give_share(&(share_t){b, 0, 1});
        }
    }
}

static void in_fork(block_t *b)
{
    pid_t pid = fork();
    if (pid < 0)
        return;
    if (pid == 0) {
        block_t own[SIZES];
        for (size_t i = 0; i < SIZES; i++)
            take(&own[i], NULL, ZALLOC, sizes[i]);
        for (size_t i = 0; i < SIZES; i++)
            give(&own[i]);
        for (size_t i = 0; i < BLOCKS; i += 2)
            give(&b[i]);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    if (status != 0)
        finding("a forked child ended with status %#x", (unsigned)status);
}

static void nothing_deferred(bool force, unsigned long long heartbeat, void *arg)
{
    (void)force;
    (void)heartbeat;
    if (arg != &may_refuse)
        finding("a callback with the argument %p", arg);
}

/* A change of settings is made or is not, and says so; it never ends the process. */
static void change(long wanted)
{
    char text[16];
    long before = bh_option_get_long("purge_delay");
    snprintf(text, sizeof text, "%ld", wanted);
    bool set = bh_option_set("purge_delay", text) == 0;
    long now = bh_option_get_long("purge_delay");
    if (!set && !may_refuse)
        finding("purge_delay could not be set");
    if (now != (set ? wanted : before))
        finding("purge_delay is %ld after a change that %s", now, set ? "succeeded" : "failed");
}

static void settings(void)
{
    long before = bh_option_get_long("purge_delay");
    change(before + 1);
    change(before);
    bool given = bh_register_deferred_free(nothing_deferred, &may_refuse);
    bh_collect(false);
    bool taken = bh_register_deferred_free(NULL, NULL);
    if ((!given || !taken) && !may_refuse)
        finding("a callback could not be registered");
}

void workload_run(bool refusals)
{
    static block_t b[BLOCKS], left[SIZES + 1];
    may_refuse = refusals;
    for (int round = 0; round < WORKLOAD_ROUNDS; round++) {
        settings();
        take_all(b, NULL);
        for (size_t i = 0; i < BLOCKS; i += 4)
            resize(&b[i], i % 8 == 0 ? b[i].size / 3 + 1 : b[i].size + b[i].size / 2 + 10);
        run_thread(live_and_end, left);
        if (round == 0)
            in_fork(b);
        give_share(&(share_t){b, 0, 3});
        run_thread(give_share, &(share_t){b, 1, 3});
        bh_collect(true);
        for (size_t i = 0; i < BLOCKS; i += 3) /* reuse, and what was purged or not */
            take(&b[i], NULL, ZALLOC, sizes[i / WAYS]);
        for (size_t i = 0; i <= SIZES; i++)
            give(&left[i]);
        heaps();
        give_share(&(share_t){b, 0, 1});
        bh_collect(true);
    }
}

void workload_recovered(void)
{
    static block_t b[BLOCKS];
    may_refuse = false;
    for (int round = 0; round < 2; round++) {
        take_all(b, NULL);
        give_share(&(share_t){b, 0, 1});
    }
    heaps();
    bh_collect(true);
    const char *text = inv_all(true, false);
    if (text == NULL)
        text = inv_all_open_is_open();
    if (text != NULL)
        finding("%s", text);
}
