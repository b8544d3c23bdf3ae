#include "worker.h"

#include "oracle.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Tight local loops keep this many blocks at most. */
#define CHURN_BLOCKS 64
#define BULK_MAX 600

/* Rounds of key destructors: all that libc grants, but the thread sanitizer
 * takes a thread's state down in the last of them. */
#define EXIT_ROUNDS (STRESS_TSAN ? 3 : 4)

#if STRESS_TSAN && defined(__clang__)
/* After the last destructor, when clang 14's thread sanitizer has taken the
 * thread's state down, libc calls free(NULL) twice (__libc_thread_freeres). The
 * sanitizer's free records the call first, and once in some 30,000 threads the
 * record comes to the end of a part of its trace: it reads through a null
 * pointer. This one records nothing for NULL. */
extern void __interceptor_free(void *p); /* NOLINT: the sanitizer's name */
__attribute__((visibility("default"), disable_sanitizer_instrumentation)) void free(void *p)
{
    if (p != NULL)
        __interceptor_free(p);
}
#endif

atomic_int worker_phase;
_Atomic size_t worker_target;
atomic_bool worker_fork_wanted;
char worker_callback_mark;
atomic_bool worker_callback_quiet;

static pthread_key_t exit_key;
static _Atomic uint32_t next_heap_id = 1;

static _Thread_local struct worker *self;
static _Thread_local unsigned long long last_heartbeat;
static _Thread_local bool in_callback;

/* ------------------------------------------------------------ destinations */

/* A full shard is no reason to stop: the block is freed instead. */
static void put(struct worker *w, struct shard *s, const struct block *b)
{
    if (!shard_put(s, b))
        ops_free(w, b);
}

static void post_outgoing(struct worker *w)
{
    if (w->outgoing == NULL)
        return;
    mailbox_post(store_mailbox((unsigned)rng_below(&w->rng, opt.threads)), w->outgoing);
    w->outgoing = NULL;
}

static void mail(struct worker *w, const struct block *b)
{
    if (w->outgoing == NULL)
        w->outgoing = batch_new();
    if (w->outgoing == NULL) {
        put(w, store_common(&w->rng), b);
        return;
    }
    w->outgoing->blocks[w->outgoing->count++] = *b;
    w->stats[STAT_MAIL_BLOCKS]++;
    if (w->outgoing->count == BATCH_BLOCKS)
        post_outgoing(w);
}

/* Where a block of `heap` (NULL: default heap) may go. */
static void place(struct worker *w, const struct worker_heap *heap, const struct block *b)
{
    if (heap != NULL && heap->to_destroy && b->heap == heap->id) {
        put(w, store_heap(w->index, (unsigned)(heap - w->heaps)), b);
        return;
    }
    uint64_t dice = rng_below(&w->rng, 100);
    if (dice < 55)
        put(w, store_home(w->index), b);
    else if (dice < 80)
        put(w, store_common(&w->rng), b);
    else
        mail(w, b);
}

/* A block that any thread may free, from this thread's shard or a common one. */
static bool take_any(struct worker *w, struct block *b)
{
    if (rng_chance(&w->rng, 550) && shard_take(store_home(w->index), &w->rng, b))
        return true;
    if (!shard_take(store_common(&w->rng), &w->rng, b))
        return false;
    w->stats[STAT_SHARED_FREE]++;
    return true;
}

/* Frees or keeps what other threads sent. */
static bool read_mail(struct worker *w)
{
    struct batch *batch = mailbox_take_all(store_mailbox(w->index));
    bool any = batch != NULL;
    bool backwards = rng_chance(&w->rng, 500);
    while (batch != NULL) {
        struct batch *next = batch->next;
        for (uint32_t i = 0; i < batch->count; i++) {
            struct block *b = &batch->blocks[backwards ? batch->count - 1 - i : i];
            if (rng_chance(&w->rng, 900)) {
                ops_free(w, b);
                w->stats[STAT_SHARED_FREE]++;
            } else if (ops_realloc(w, NULL, b)) {
                put(w, store_home(w->index), b);
            }
        }
        batch_release(batch);
        batch = next;
    }
    return any;
}

/* ------------------------------------------------------------------- heaps */

static struct worker_heap *random_heap(struct worker *w)
{
    struct worker_heap *heap = &w->heaps[rng_below(&w->rng, HEAPS_PER_WORKER)];
    return heap->handle == NULL ? NULL : heap;
}

static bool sum_visited(const bh_heap_t *heap, const bh_heap_area_t *area, void *block, size_t size, void *sum)
{
    (void)heap, (void)area;
    if (block != NULL)
        sum_add(sum, (uintptr_t)block, size);
    return true;
}

/* All blocks of a heap that may be destroyed are in its own shard. Other plants
 * make the heap and its record differ in ways of their own. */
static void check_visit(struct worker_heap *heap, struct shard *s)
{
    if (!heap->to_destroy || (sut_plant != PLANT_NONE && sut_plant != PLANT_VISIT))
        return;
    struct sum expected = {0}, got = {0};
    shard_sum(s, &expected);
    if (!sut_visit(heap->handle, sum_visited, &got))
        return;
    if (got.count != expected.count || got.bytes != expected.bytes || got.mix != expected.mix)
        finding("visit", "heap %" PRIu32 ": visited %" PRIu64 " blocks of %" PRIu64 " bytes, of %" PRIu64 " and %" PRIu64,
                heap->id, got.count, got.bytes, expected.count, expected.bytes);
}

static void heap_end(struct worker *w, struct worker_heap *heap)
{
    struct shard *s = store_heap(w->index, (unsigned)(heap - w->heaps));
    check_visit(heap, s);
    bool destroy = heap->to_destroy && rng_chance(&w->rng, 800);
    struct block b;
    while (shard_take(s, &w->rng, &b)) {
        if (destroy)
            ops_vanish(w, &b);
        else
            put(w, store_common(&w->rng), &b);
    }
    if (destroy) {
        bh_heap_destroy(heap->handle);
        w->stats[STAT_HEAP_DESTROY]++;
    } else {
        bh_heap_delete(heap->handle);
        w->stats[STAT_HEAP_DELETE]++;
    }
    heap->handle = NULL;
}

static void heap_new_or_end(struct worker *w)
{
    struct worker_heap *heap = &w->heaps[rng_below(&w->rng, HEAPS_PER_WORKER)];
    if (heap->handle != NULL) {
        heap_end(w, heap);
        return;
    }
    heap->handle = bh_heap_new();
    if (heap->handle == NULL)
        finding("unexpected-null", "bh_heap_new");
    heap->id = atomic_fetch_add_explicit(&next_heap_id, 1, memory_order_relaxed);
    heap->to_destroy = rng_chance(&w->rng, 500);
    w->stats[STAT_HEAP_NEW]++;
}

/* An exiting thread may leave its heaps to be deleted with it. */
static void heaps_at_exit(struct worker *w)
{
    for (unsigned i = 0; i < HEAPS_PER_WORKER; i++) {
        struct worker_heap *heap = &w->heaps[i];
        if (heap->handle == NULL)
            continue;
        if (rng_chance(&w->rng, 500)) {
            heap_end(w, heap);
            continue;
        }
        struct block b;
        while (shard_take(store_heap(w->index, i), &w->rng, &b))
            put(w, store_common(&w->rng), &b);
        heap->handle = NULL;
        w->stats[STAT_HEAP_DELETE]++;
    }
}

/* -------------------------------------------------------------- operations */

static void do_alloc(struct worker *w)
{
    struct worker_heap *heap = rng_chance(&w->rng, 400) ? random_heap(w) : NULL;
    struct block b;
    if (ops_alloc(w, heap, ops_random_size(&w->rng), &b))
        place(w, heap, &b);
}

static void do_free(struct worker *w)
{
    struct block b;
    if (take_any(w, &b))
        ops_free(w, &b);
}

static void do_realloc(struct worker *w)
{
    struct worker_heap *heap = rng_chance(&w->rng, 300) ? random_heap(w) : NULL;
    struct block b;
    bool from_heap = heap != NULL && heap->to_destroy && rng_chance(&w->rng, 500);
    if (from_heap ? shard_take(store_heap(w->index, (unsigned)(heap - w->heaps)), &w->rng, &b)
                  : take_any(w, &b))
        if (ops_realloc(w, heap, &b))
            place(w, heap, &b);
}

static void do_check(struct worker *w)
{
    struct shard *s = rng_chance(&w->rng, 500) ? store_home(w->index) : store_common(&w->rng);
    if (shard_check_one(s, &w->rng))
        w->stats[STAT_CHECK]++;
}

static void do_bulk(struct worker *w)
{
    size_t size = 1 + rng_below(&w->rng, rng_chance(&w->rng, 900) ? 1024 : 16384);
    size_t count = 16 + rng_below(&w->rng, BULK_MAX);
    struct block b;
    for (size_t i = 0; i < count && ops_alloc(w, NULL, size, &b); i++)
        mail(w, &b);
    post_outgoing(w);
    read_mail(w);
}

static void do_churn(struct worker *w)
{
    struct block held[CHURN_BLOCKS];
    size_t count = 0;
    for (unsigned i = 0; i < 4 * CHURN_BLOCKS; i++) {
        if (count < CHURN_BLOCKS && rng_chance(&w->rng, 520)) {
            if (ops_alloc(w, NULL, rng_below(&w->rng, 1025), &held[count]))
                count++;
        } else if (count > 0) {
            size_t victim = rng_chance(&w->rng, 700) ? count - 1 : rng_below(&w->rng, count);
            ops_free(w, &held[victim]);
            held[victim] = held[--count];
        }
    }
    while (count > 0)
        ops_free(w, &held[--count]);
}

/* Blocks of several heaps in turn, in one size class, so that pages would be
 * mixed if anything mixed them. */
static void do_heap_run(struct worker *w)
{
    size_t size = rng_below(&w->rng, 2048);
    struct block b;
    for (unsigned i = 0; i < 64; i++) {
        struct worker_heap *heap = random_heap(w);
        if (!ops_alloc(w, heap, size, &b))
            return;
        place(w, heap, &b);
    }
}

static void do_rare(struct worker *w)
{
    switch (rng_below(&w->rng, 8)) {
    case 0:
        bh_collect(rng_chance(&w->rng, 100));
        w->stats[STAT_COLLECT]++;
        break;
    case 1:
    case 2:
        ops_impossible(w);
        break;
    case 3:
        do_bulk(w);
        break;
    case 4:
        heap_new_or_end(w);
        break;
    default:
        do_heap_run(w);
        break;
    }
}

static void step_mixed(struct worker *w)
{
    bool fill = atomic_load_explicit(&ops_live_bytes, memory_order_relaxed) <
                atomic_load_explicit(&worker_target, memory_order_relaxed);
    uint64_t dice = rng_below(&w->rng, 1000);
    if (dice < 480)
        fill ? do_alloc(w) : do_free(w);
    else if (dice < 600)
        do_alloc(w);
    else if (dice < 760)
        do_free(w);
    else if (dice < 880)
        do_realloc(w);
    else if (dice < 960)
        do_check(w);
    else if (dice < 980)
        read_mail(w);
    else if (dice < 985)
        post_outgoing(w);
    else
        do_rare(w);
}

static void step_prodcons(struct worker *w)
{
    if (w->index % 2 == 0) {
        struct block b;
        if (ops_alloc(w, NULL, ops_random_size(&w->rng), &b))
            mail(w, &b);
        else
            step_mixed(w);
    } else if (!read_mail(w)) {
        do_free(w);
    }
}

static void step(struct worker *w)
{
    if (atomic_load_explicit(&worker_fork_wanted, memory_order_relaxed) &&
        atomic_exchange(&worker_fork_wanted, false))
        child_fork(w);
    switch (atomic_load_explicit(&worker_phase, memory_order_relaxed)) {
    case PHASE_PRODCONS:
        step_prodcons(w);
        break;
    case PHASE_BULK:
        rng_chance(&w->rng, 20) ? do_bulk(w) : step_mixed(w);
        break;
    case PHASE_CHURN:
        rng_chance(&w->rng, 100) ? do_churn(w) : step_mixed(w);
        break;
    default:
        step_mixed(w);
        break;
    }
}

/* ----------------------------------------------------------------- threads */

/* Runs while the thread exits, several times if it asks for it: blocks come and
 * go when the allocator may have taken its own thread state down already. */
static void exit_destructor(void *arg)
{
    struct worker *w = arg;
    uint64_t count = 1 + rng_below(&w->rng, 16);
    struct block b;
    for (uint64_t i = 0; i < count; i++) {
        if (ops_alloc(w, NULL, rng_below(&w->rng, 3000), &b))
            put(w, store_common(&w->rng), &b);
        if (shard_take(store_common(&w->rng), &w->rng, &b))
            ops_free(w, &b);
        if (shard_take(store_home(w->index), &w->rng, &b))
            ops_free(w, &b);
    }
    w->stats[STAT_TLS_DESTRUCTOR]++;
    if (w->destructor_rounds > 0) {
        w->destructor_rounds--;
        pthread_setspecific(exit_key, w);
    }
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    self = w;
    w->destructor_rounds = (unsigned)rng_below(&w->rng, EXIT_ROUNDS);
    pthread_setspecific(exit_key, w);
    uint64_t steps = rng_chance(&w->rng, 500) ? rng_below(&w->rng, 300)
                                              : rng_below(&w->rng, 200000);
    while (steps-- > 0 && !atomic_load_explicit(&stress_stop, memory_order_relaxed))
        step(w);
    if (rng_chance(&w->rng, 500))
        read_mail(w);
    post_outgoing(w);
    heaps_at_exit(w);
    bool by_call = rng_chance(&w->rng, 500);
    atomic_store(&w->finished, true);
    if (by_call)
        pthread_exit(NULL);
    return NULL;
}

void worker_init(void)
{
    if (pthread_key_create(&exit_key, exit_destructor) != 0)
        abort();
}

void worker_start(struct worker *w)
{
    atomic_store(&w->finished, false);
    int rc = pthread_create(&w->thread, NULL, worker_main, w);
    if (rc != 0)
        finding("thread", "pthread_create: %s", strerror(rc));
}

/* ---------------------------------------------------------------- callback */

void worker_deferred_free(bool force, unsigned long long heartbeat, void *arg)
{
    heartbeat = sut_heartbeat(heartbeat);
    if (arg != &worker_callback_mark)
        finding("callback", "argument %p instead of %p", arg, (void *)&worker_callback_mark);
    if (in_callback)
        finding("callback", "called from within itself");
    if (heartbeat <= last_heartbeat)
        finding("heartbeat", "%llu after %llu (force %d)", heartbeat, last_heartbeat, force);
    last_heartbeat = heartbeat;
    struct worker *w = self;
    if (w == NULL || atomic_load_explicit(&worker_callback_quiet, memory_order_relaxed))
        return;
    w->stats[STAT_CALLBACK]++;
    in_callback = true;
    struct block b;
    if (rng_chance(&w->rng, 100) && ops_alloc(w, NULL, rng_below(&w->rng, 500), &b))
        put(w, store_common(&w->rng), &b);
    if (rng_chance(&w->rng, 100) && shard_take(store_common(&w->rng), &w->rng, &b))
        ops_free(w, &b);
    in_callback = false;
}
