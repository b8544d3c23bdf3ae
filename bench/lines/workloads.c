#include "workloads.h"

#include <bulkhead.h>
#include <string.h>

/* ----------------------------------------------------------- random numbers */

/* As in ../programs/common.h. */
static uint32_t below(uint64_t *state, uint32_t n)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*state >> 32) * n >> 32);
}

/* ------------------------------------------------------------------- blocks */

static struct block allocate(size_t size, unsigned char tag)
{
    machine_begin(MACHINE_MALLOC);
    struct block block = {bh_malloc(size), tag};
    check(block.at != NULL, "out of memory");
    *block.at = tag;
    return block;
}

static void release(struct block block)
{
    check(*block.at == block.tag, "a block has changed");
    machine_begin(MACHINE_FREE);
    bh_free(block.at);
}

static void put(struct queue *queue, struct block block)
{
    check(queue->count < QUEUE, "a queue is full");
    queue->blocks[(queue->first + queue->count++) % QUEUE] = block;
}

static struct block take(struct queue *queue)
{
    struct block block = queue->blocks[queue->first];
    queue->first = (queue->first + 1) % QUEUE;
    queue->count--;
    return block;
}

/* ---------------------------------------------------------------- workloads */

enum { WAITING = 128, PLACES = 256, LIFE = 64 };

struct worker workers[MOST];
unsigned processors;
static struct queue shared_queue;
static struct block places[PLACES * MOST];

/* 4 bytes to 32 KiB, as frequent as the inverse of the size's square, as in
 * ../programs/glibc_thread.c. */
static size_t mixed_size(struct worker *w)
{
    const double low = 1.0 / 4, high = 1.0 / 32768;
    return (size_t)(1.0 / (low - (double)below(&w->random, 1u << 24) / (1u << 24) * (low - high)));
}

/* What is passed to other threads, as in ../programs/larson.c. */
static size_t passed_size(struct worker *w)
{
    return 8 + below(&w->random, 993);
}

static unsigned char next_tag(struct worker *w)
{
    return (unsigned char)(w->steps + w->number);
}

/* Own blocks: a step frees a random one, the next fills its slot. */
static void local_step(struct worker *w)
{
    struct block *slot = w->emptied != NULL ? w->emptied : &w->slots[below(&w->random, SLOTS)];
    w->emptied = NULL;
    if (slot->at == NULL) {
        *slot = allocate(mixed_size(w), next_tag(w));
        return;
    }
    release(*slot);
    slot->at = NULL;
    w->emptied = slot;
}

/* Allocates, then frees what the thread before it in the ring allocated. */
static void ring_step(struct worker *w)
{
    struct queue *other = &workers[(w->number + processors - 1) % processors].queue;
    if (w->steps % 2 == 0 || other->count < WAITING)
        put(&w->queue, allocate(passed_size(w), next_tag(w)));
    else
        release(take(other));
}

static void produce(struct worker *w)
{
    put(&shared_queue, allocate(passed_size(w), next_tag(w)));
}

static void consume(void)
{
    if (shared_queue.count >= WAITING)
        release(take(&shared_queue));
}

static void one_producer_step(struct worker *w)
{
    if (processors == 1 ? w->steps % 2 == 0 : w->number == 0)
        produce(w);
    else
        consume();
}

static void one_consumer_step(struct worker *w)
{
    if (processors == 1 ? w->steps % 2 != 0 : w->number == 0)
        consume();
    else
        produce(w);
}

/* A block goes to a random place, and the one that was there is freed. */
static void exchange_step(struct worker *w)
{
    if (w->pocket.at != NULL) {
        release(w->pocket);
        w->pocket.at = NULL;
        return;
    }
    struct block block = allocate(passed_size(w), next_tag(w)), *place = &places[below(&w->random, PLACES * processors)];
    w->pocket = *place;
    *place = block;
}

/* A life of 64 steps: allocates 32 blocks and frees 16 of them, leaves 16 to others, and
 * frees 16 that others left. */
static void lives_step(struct worker *w)
{
    unsigned step = w->age % LIFE;
    if (step < LIFE / 2) {
        put(&w->queue, allocate(passed_size(w), next_tag(w)));
    } else if (step < 3 * LIFE / 4) {
        struct block block = take(&w->queue);
        release(take(&w->queue));
        struct block *place = &places[below(&w->random, PLACES * processors)];
        w->pocket = *place;
        *place = block;
        put(&w->queue, w->pocket);
    } else if (w->queue.count > 0) {
        struct block block = take(&w->queue);
        if (block.at != NULL)
            release(block);
    }
}

/* ------------------------------------------------------------------- orders */

unsigned order_all(uint64_t round, unsigned *who)
{
    (void)round;
    for (unsigned i = 0; i < processors; i++)
        who[i] = i;
    return processors;
}

/* The first, then one of the others, by turns. */
static unsigned first_and_another(uint64_t round, unsigned *who)
{
    who[0] = 0;
    who[1] = processors > 1 ? 1 + (unsigned)(round % (processors - 1)) : 0;
    return 2;
}

static unsigned another_and_first(uint64_t round, unsigned *who)
{
    first_and_another(round, who);
    who[0] = who[1];
    who[1] = 0;
    return 2;
}

static const struct workload workloads[] = {
    {.name = "local", .step = local_step, .order = order_all},
    {.name = "ring", .step = ring_step, .order = order_all},
    {.name = "one_producer", .step = one_producer_step, .order = first_and_another},
    {.name = "one_consumer", .step = one_consumer_step, .order = another_and_first},
    {.name = "exchange", .step = exchange_step, .order = order_all},
    {.name = "lives", .step = lives_step, .order = order_all, .life = LIFE},
};

const struct workload *workload_named(const char *name)
{
    for (size_t i = 0; i < sizeof workloads / sizeof workloads[0]; i++)
        if (strcmp(name, workloads[i].name) == 0)
            return &workloads[i];
    return NULL;
}

void workers_start(unsigned n)
{
    static const struct worker none;
    processors = n;
    for (unsigned i = 0; i < n; i++) {
        workers[i] = none;
        workers[i].number = i;
        workers[i].random = 0x9e3779b97f4a7c15u * (i + 1);
        check(sem_init(&workers[i].turn, 0, 0) == 0, "sem_init");
    }
}
