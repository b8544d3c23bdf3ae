#include "store.h"

#include "oracle.h"

#include <sys/mman.h>

#define SHARDS (COMMON_SHARDS + WORKERS_MAX * (1 + HEAPS_PER_WORKER))
#define BATCHES 4096

/* In-place checks hold the shard's lock, so they are for small blocks only. */
#define CHECK_IN_PLACE_MAX (16 * KIB)

static struct shard shards[SHARDS];
static struct mailbox mailboxes[WORKERS_MAX];

static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static struct batch *pool_memory;
static struct batch *pool_free;
static size_t pool_used; /* batches of pool_memory ever handed out */

void store_init(void)
{
    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_init(&shards[i].lock, NULL);
        shards[i].blocks = table_new(SHARD_CAPACITY * sizeof(struct block));
    }
    pool_memory = table_new(BATCHES * sizeof *pool_memory);
}

struct shard *store_common(struct rng *r)
{
    return &shards[rng_below(r, COMMON_SHARDS)];
}

struct shard *store_home(unsigned worker)
{
    return &shards[COMMON_SHARDS + worker];
}

struct shard *store_heap(unsigned worker, unsigned heap)
{
    return &shards[COMMON_SHARDS + WORKERS_MAX + worker * HEAPS_PER_WORKER + heap];
}

struct mailbox *store_mailbox(unsigned worker)
{
    return &mailboxes[worker];
}

bool shard_put(struct shard *s, const struct block *b)
{
    pthread_mutex_lock(&s->lock);
    bool room = s->count < SHARD_CAPACITY;
    if (room) {
        s->blocks[s->count++] = *b;
        if (s->count > s->peak)
            s->peak = s->count;
    }
    pthread_mutex_unlock(&s->lock);
    return room;
}

bool shard_take(struct shard *s, struct rng *r, struct block *out)
{
    pthread_mutex_lock(&s->lock);
    bool any = s->count > 0;
    if (any) {
        uint32_t i = (uint32_t)rng_below(r, s->count);
        *out = s->blocks[i];
        s->blocks[i] = s->blocks[--s->count];
    }
    pthread_mutex_unlock(&s->lock);
    return any;
}

bool shard_check_one(struct shard *s, struct rng *r)
{
    pthread_mutex_lock(&s->lock);
    bool any = s->count > 0;
    if (any) {
        const struct block *b = &s->blocks[rng_below(r, s->count)];
        if (b->usable <= CHECK_IN_PLACE_MAX)
            oracle_check(b, "random check");
    }
    pthread_mutex_unlock(&s->lock);
    return any;
}

struct batch *batch_new(void)
{
    pthread_mutex_lock(&pool_lock);
    struct batch *batch = pool_free;
    if (batch != NULL)
        pool_free = batch->next;
    else if (pool_used < BATCHES)
        batch = &pool_memory[pool_used++];
    pthread_mutex_unlock(&pool_lock);
    if (batch != NULL)
        batch->count = 0;
    return batch;
}

void batch_release(struct batch *batch)
{
    pthread_mutex_lock(&pool_lock);
    batch->next = pool_free;
    pool_free = batch;
    pthread_mutex_unlock(&pool_lock);
}

void mailbox_post(struct mailbox *m, struct batch *batch)
{
    struct batch *head = atomic_load_explicit(&m->head, memory_order_relaxed);
    do
        batch->next = head;
    while (!atomic_compare_exchange_weak_explicit(&m->head, &head, batch, memory_order_release,
                                                  memory_order_relaxed));
}

struct batch *mailbox_take_all(struct mailbox *m)
{
    return atomic_exchange_explicit(&m->head, NULL, memory_order_acquire);
}

void store_lock_all(void)
{
    for (size_t i = 0; i < SHARDS; i++)
        pthread_mutex_lock(&shards[i].lock);
    pthread_mutex_lock(&pool_lock);
}

void store_unlock_all(void)
{
    pthread_mutex_unlock(&pool_lock);
    for (size_t i = SHARDS; i-- > 0;)
        pthread_mutex_unlock(&shards[i].lock);
}

void sum_add(struct sum *sum, uintptr_t addr, size_t usable)
{
    struct rng mixer = {addr};
    sum->count++;
    sum->bytes += usable;
    sum->mix += rng_next(&mixer);
}

void shard_sum(struct shard *s, struct sum *sum)
{
    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < s->count; i++)
        sum_add(sum, s->blocks[i].addr, s->blocks[i].usable);
    pthread_mutex_unlock(&s->lock);
}

void store_sum(struct sum *sum)
{
    for (size_t i = 0; i < SHARDS; i++)
        shard_sum(&shards[i], sum);
    for (unsigned w = 0; w < WORKERS_MAX; w++)
        for (const struct batch *b = atomic_load(&mailboxes[w].head); b != NULL; b = b->next)
            for (uint32_t i = 0; i < b->count; i++)
                sum_add(sum, b->blocks[i].addr, b->blocks[i].usable);
}

void store_drain(void (*use)(const struct block *b))
{
    /* `use` may call the allocator, whose callback may put blocks into common
     * shards: count down with the shard's own counter. */
    for (size_t i = SHARDS; i-- > 0;)
        while (shards[i].count > 0) {
            struct block b = shards[i].blocks[--shards[i].count];
            use(&b);
        }
    for (unsigned w = 0; w < WORKERS_MAX; w++)
        for (struct batch *b = mailbox_take_all(&mailboxes[w]); b != NULL;) {
            struct batch *next = b->next;
            for (uint32_t i = 0; i < b->count; i++)
                use(&b->blocks[i]);
            batch_release(b);
            b = next;
        }
}

void store_discard(void)
{
    for (size_t i = 0; i < SHARDS; i++)
        madvise(shards[i].blocks, shards[i].peak * sizeof(struct block), MADV_DONTNEED);
    madvise(pool_memory, pool_used * sizeof *pool_memory, MADV_DONTNEED);
}
