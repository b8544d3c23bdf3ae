/* Two threads free one block. The map makes one of them see the other, but for
 * the few instructions in which both have tested it and neither has changed it;
 * what happens then is measured, and nothing worse than a late report may. */
#include "race.h"

#include "bulkhead.h"
#include "targets.h"

#include <pthread.h>
#include <stdatomic.h>

#define NEIGHBOURS 4
#define SETTLE_BYTES ((size_t)1 << 20) /* more than the longest span */
#define LATEST 400                     /* turns of an empty loop */

const char *const race_names[RACE_KINDS] = {"owner and another", "two others", "two others, owner dead"};

static struct {
    atomic_uint ready, go;
    uintptr_t block;
    size_t size;
    uint32_t delay[2];
} arena;

static void free_in_step(unsigned who)
{
    atomic_fetch_add(&arena.ready, 1);
    while (atomic_load(&arena.go) == 0) {
    }
    for (volatile uint32_t i = 0; i < arena.delay[who]; i++) {
    }
    target_give(arena.block);
}

static void *freer(void *who)
{
    free_in_step((unsigned)(uintptr_t)who);
    return NULL;
}

static void prepare(void)
{
    for (int i = 0; i < NEIGHBOURS; i++)
        target_take(arena.size);
    arena.block = target_take(arena.size);
    for (int i = 0; i < NEIGHBOURS; i++)
        target_take(arena.size);
}

static void *owner(void *unused)
{
    prepare();
    return unused;
}

static pthread_t start(void *(*body)(void *), unsigned who)
{
    pthread_t t;
    if (pthread_create(&t, NULL, body, (void *)(uintptr_t)who) != 0)
        attack_broken("pthread_create");
    return t;
}

void race_settle(size_t size, uintptr_t block)
{
    unsigned times = 0;
    bh_collect(false);
    size_t n = SETTLE_BYTES / (size > 8 ? size : 8) + 2 * NEIGHBOURS + 4;
    for (size_t i = 0; i < n; i++) {
        if (target_take(size) == block && ++times > 1)
            attack_record("handed out twice", block);
    }
    bh_collect(false);
}

void race_body(void *arg)
{
    const race_t *race = arg;
    uint64_t random = race->seed;
    arena.size = race->size;
    arena.delay[0] = attack_below(&random, LATEST);
    arena.delay[1] = attack_below(&random, LATEST);
    if (race->kind == RACE_OWNER_DEAD)
        pthread_join(start(owner, 0), NULL);
    else
        prepare();
    bool owner_frees = race->kind == RACE_OWNER_REMOTE;
    pthread_t first = start(freer, 0), second = 0;
    if (!owner_frees)
        second = start(freer, 1);
    while (atomic_load(&arena.ready) < (owner_frees ? 1u : 2u)) {
    }
    attack_record("double-free", arena.block);
    atomic_store(&arena.go, 1);
    if (owner_frees)
        free_in_step(1);
    else
        pthread_join(second, NULL);
    pthread_join(first, NULL);
    attack_record("late", arena.block);
    race_settle(arena.size, arena.block);
}
