/* harden/map.h: the table of states of meta/types.h, every move from every
 * state, and the atomic half under contention. */
#include "harden/map.h"
#include "support.h"

#include <pthread.h>

static bhi_map_word_t map[4];

enum { LIVE = 1, HELD = 2 };

static void put(uint32_t i, unsigned state)
{
    uint64_t bit = bhi_map_bit(i);
    bhi_map_word_t *w = bhi_map_word(map, i);
    uint64_t live = atomic_load(&w->live) & ~bit, held = atomic_load(&w->held) & ~bit;
    atomic_store(&w->live, (state & LIVE) != 0 ? live | bit : live);
    atomic_store(&w->held, (state & HELD) != 0 ? held | bit : held);
}

static unsigned at(uint32_t i)
{
    const bhi_map_word_t *w = &map[i / 64];
    return (unsigned)(atomic_load(&w->live) >> (i % 64) & 1) | (unsigned)(atomic_load(&w->held) >> (i % 64) & 1) << 1;
}

/* Every state of one block, with all other blocks in every state. */
static void each(void (*check)(uint32_t, unsigned))
{
    for (unsigned others = 0; others < 4; others++) {
        for (uint32_t i = 0; i < 256; i += i == 0 ? 1 : 31) {
            for (unsigned state = 0; state < 4; state++) {
                for (uint32_t k = 0; k < 256; k++)
                    put(k, others);
                put(i, state);
                check(i, state);
                for (uint32_t k = 0; k < 256; k++)
                    ck_assert_msg(k == i || at(k) == others, "block %u changed with %u", k, i);
            }
        }
    }
}

static void set_live(uint32_t i, unsigned state)
{
    ck_assert(bhi_map_set_live(map, i) == (state == 0));
    ck_assert_uint_eq(at(i), state == 0 ? LIVE : state);
}

static void clear_live(uint32_t i, unsigned state)
{
    ck_assert(bhi_map_clear_live(map, i) == (state == LIVE));
    ck_assert_uint_eq(at(i), state == LIVE ? 0 : state);
}

static void is_live(uint32_t i, unsigned state)
{
    ck_assert(bhi_map_is_live(map, i) == (state == LIVE));
    ck_assert_uint_eq(at(i), state);
}

static void is_stray(uint32_t i, unsigned state)
{
    ck_assert(bhi_map_is_stray(map, i) == (state == HELD));
}

static void set_held(uint32_t i, unsigned state)
{
    ck_assert(bhi_map_set_held(map, i) == (state == LIVE));
    ck_assert_uint_eq(at(i), state == LIVE ? (LIVE | HELD) : state);
}

START_TEST(state_table)
{
    if (!BH_HARDEN_MAP)
        return;
    each(set_live);
    each(clear_live);
    each(is_live);
    each(is_stray);
    each(set_held);
}
END_TEST

START_TEST(take_held)
{
    uint64_t seed = unit_seed("map");
    for (int round = 0; round < 20000; round++) {
        uint64_t live = unit_random(&seed), held = unit_random(&seed) & unit_random(&seed);
        if (round % 3 == 0)
            held &= live;
        if (round % 7 == 0)
            held = 0;
        atomic_store(&map[0].live, live);
        atomic_store(&map[0].held, held);
        uint64_t stray;
        uint64_t taken = bhi_map_take_held(&map[0], &stray);
        if (!BH_HARDEN_MAP) {
            ck_assert_uint_eq(taken, held);
            continue;
        }
        ck_assert_uint_eq(taken, held & live);
        ck_assert_uint_eq(stray, held & ~live);
        ck_assert_uint_eq(atomic_load(&map[0].live), live & ~held);
        ck_assert_uint_eq(atomic_load(&map[0].held), held & ~live); /* the trace of a double free stays */
    }
}
END_TEST

/* Of many threads that free the same blocks, exactly one gets each. */
#define THREADS 6
static _Atomic(unsigned) won[256];
static pthread_barrier_t barrier;

static void *hold_all(void *arg)
{
    pthread_barrier_wait(&barrier);
    for (uint32_t i = 0; i < 256; i++) {
        if (bhi_map_set_held(map, i))
            atomic_fetch_add(&won[i], 1);
    }
    return arg;
}

START_TEST(one_winner)
{
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (int round = 0; round < 200; round++) {
        pthread_t threads[THREADS];
        for (uint32_t i = 0; i < 256; i++) {
            put(i, LIVE);
            atomic_store(&won[i], 0);
        }
        for (int t = 0; t < THREADS; t++)
            pthread_create(&threads[t], NULL, hold_all, NULL);
        for (int t = 0; t < THREADS; t++)
            pthread_join(threads[t], NULL);
        for (uint32_t i = 0; i < 256; i++)
            ck_assert_uint_eq(atomic_load(&won[i]), 1);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("map");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, state_table);
    tcase_add_test(c, take_held);
    tcase_add_test(c, one_winner);
    suite_add_tcase(s, c);
    return unit_main(s);
}
