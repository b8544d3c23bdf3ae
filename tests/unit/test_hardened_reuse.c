/* core/hardened.c: which blocks come next, what goes on while they do, and the pages
 * that wait for them. The program runs in profile hardened. */
#include "bulkhead.h"
#include "core/free.h"
#include "core/hardened.h"
#include "core/heap.h"
#include "core/thread.h"
#include "harden/age.h"
#include "invariants.h"
#include "meta/size_class.h"
#include "support.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int *marker;

/* ---------------------------------------------------------------- the heartbeat */

static unsigned beats;

static void count_beat(bool force, unsigned long long beat, void *arg)
{
    (void)force, (void)beat, (void)arg;
    beats++;
}

/* A program that frees each block at once never empties what was chosen. */
START_TEST(pairs_come_with_heartbeats)
{
    bh_register_deferred_free(count_beat, NULL);
    static const struct {
        size_t size;
        unsigned apart;
    } rows[] = {{40, 256}, {200, 256}, {1000, 128}, {8000, 32}, {30000, 32}, {100000, 32}};
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (int warm = 0; warm < 2000; warm++)
            bh_free(bh_malloc(rows[i].size));
        for (int round = 0; round < 50; round++) {
            beats = 0;
            for (unsigned k = 0; k < rows[i].apart; k++)
                bh_free(bh_malloc(rows[i].size));
            ck_assert_msg(beats > 0, "%u pairs of %zu bytes without a heartbeat", rows[i].apart, rows[i].size);
        }
    }
    bh_register_deferred_free(NULL, NULL);
    ck_assert_invariants();
}
END_TEST

/* ----------------------------------------------------------------- the next blocks */

/* Nobody gets a block back before as many others of its class were handed out as its ages
 * promise, whatever else is freed and in how many pages; and then somebody does. */
START_TEST(a_freed_block_waits)
{
    enum { LIVE = 3000, SOON = 20000 };
    static const size_t sizes[] = {8, 60, 120, 240, 500, 1000, 4000};
    static void *live[LIVE];
    uint64_t seed = unit_seed("waits");
    for (unsigned s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        size_t bytes = bhi_class_size(bhi_class_of(sizes[s] + BH_CANARY_LEAST));
        uint32_t length = bhi_age_length(bytes, bhi_process.options.quarantine_bytes);
        ck_assert(length > 0 && (bytes > BH_AGE_SMALL || length >= 8));
        for (unsigned i = 0; i < LIVE; i++)
            live[i] = bh_malloc(sizes[s]);
        unsigned back = 0;
        for (unsigned round = 0; round < 3000; round++) {
            unsigned at = unit_below(&seed, LIVE);
            void *gone = live[at];
            bh_free(gone);
            uint32_t others = length + unit_below(&seed, 200);
            for (uint32_t i = 0; i < others; i++) { /* with frees between, or not */
                unsigned k = unit_below(&seed, LIVE);
                if (k != at && round % 3 != 0)
                    bh_free(live[k]);
                void *p = bh_malloc(sizes[s]);
                if (p == gone) {
                    ck_assert_msg(i >= length, "a block of %zu bytes came back after %u of %u", bytes, i, length);
                    back++;
                    gone = NULL;
                }
                if (k != at && round % 3 != 0)
                    live[k] = p;
                else
                    bh_free(p);
            }
            live[at] = bh_malloc(sizes[s]);
        }
        for (unsigned i = 0; i < SOON && back == 0; i++)
            bh_free(bh_malloc(sizes[s]));
        ck_assert_msg(back > 0, "no block of %zu bytes ever came back", bytes);
        for (unsigned i = 0; i < LIVE; i++)
            bh_free(live[i]);
        ck_assert_invariants();
    }
}
END_TEST

/* No two live blocks are the same however blocks come and go, and all is accounted
 * for: the pages here have hundreds of blocks, a few, and one. */
START_TEST(each_block_is_in_one_place)
{
    enum { MOST = 3000 };
    static unsigned char *p[MOST];
    static const size_t sizes[] = {8, 40, 120, 500, 2000, 8000, 30000, 120000};
    uint64_t seed = unit_seed("places");
    for (unsigned s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        unsigned most = sizes[s] > 2000 ? 60 : MOST;
        for (int step = 0; step < 30000; step++) {
            unsigned i = unit_below(&seed, most);
            if (p[i] != NULL) {
                ck_assert_uint_eq(*p[i], i & 0xff);
                bh_free(p[i]);
                p[i] = NULL;
            } else if (unit_below(&seed, 3 + (unsigned)step / 5000 % 3) != 0) {
                p[i] = bh_malloc(sizes[s]);
                *p[i] = (unsigned char)i;
            }
            if (step % 3000 == 0)
                ck_assert_ptr_null(inv_all(false, false));
        }
        for (unsigned i = 0; i < most; i++) {
            bh_free(p[i]);
            p[i] = NULL;
        }
    }
    ck_assert_invariants();
}
END_TEST

/* Blocks chosen before a fork come in another order in the child. */
START_TEST(a_child_chooses_anew)
{
    enum { N = 30 };
    uintptr_t *shared = mmap(NULL, BH_OS_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    unsigned same = 0;
    for (int round = 0; round < 20; round++) {
        (void)!bh_malloc(64);
        pid_t child = fork();
        ck_assert_int_ge(child, 0);
        if (child == 0) {
            for (int i = 0; i < N; i++)
                shared[i] = (uintptr_t)bh_malloc(64);
            _exit(inv_heap(bhi_thread_heap) == NULL ? 0 : 1);
        }
        int status;
        ck_assert(waitpid(child, &status, 0) == child && status == 0);
        for (int i = 0; i < N; i++)
            same += shared[i] == (uintptr_t)bh_malloc(64);
    }
    ck_assert_msg(same < 20 * N / 10, "%u of %d blocks came at the same time in parent and child", same, 20 * N);
    munmap(shared, BH_OS_PAGE_SIZE);
    ck_assert_invariants();
}
END_TEST

/* ------------------------------------------------------------------ fresh blocks */

static long faults(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_minflt;
}

/* Memory that nobody has touched is not read before it is written: that would be two
 * page faults each. */
START_TEST(fresh_memory_is_touched_once)
{
    enum { N = 4000 };
    static unsigned char *p[N];
    long before = faults();
    for (int i = 0; i < N; i++) {
        p[i] = bh_malloc(4000);
        memset(p[i], 1, 4000);
    }
    long took = faults() - before;
    ck_assert_msg(took < N * 13 / 10, "%ld page faults for %d OS pages", took, N);
    for (int i = 0; i < N; i++)
        bh_free(p[i]);
    ck_assert_invariants();
}
END_TEST

/* Nor is it read as a page ends. */
START_TEST(what_was_never_handed_out_is_not_touched)
{
    enum { SIZE = 20000 }; /* with 12 blocks a page, of five OS pages */
    unsigned char *p = bh_malloc(SIZE);
    memset(p, 1, SIZE);
    bhi_block_t block = bhi_block_of((uintptr_t)p, BHI_USE_QUERY);
    ck_assert_uint_eq(block.page->memory, BHI_MEMORY_ZERO);
    bh_free(p);
    long before = faults();
    bh_collect(true);
    ck_assert_uint_eq(block.page->state, BHI_PAGE_FREE);
    ck_assert_int_lt(faults() - before, 10);
}
END_TEST

/* What the next block's underflow leaves in one is found before it is handed out, or as
 * all are looked at. */
static bool look;

static void underflow_into_fresh(void *arg)
{
    size_t size = *(size_t *)arg;
    for (int i = 0; i < 2000; i++) {
        unsigned char *p = bh_malloc(size);
        bhi_block_t block = bhi_block_of((uintptr_t)p, BHI_USE_QUERY);
        if (block.index == 0 || block.page->memory != BHI_MEMORY_ZERO || bhi_hard_requested(block.page, block.index - 1) != 0)
            continue;
        __asm__("" : "+r"(p)); /* the compiler would warn */
        ((volatile unsigned char *)p)[-1] = 1;
        *marker = 1;
        if (look) {
            (void)bh_verify();
            return;
        }
        for (int k = 0; k < 20000; k++)
            (void)!bh_malloc(size);
    }
}

static void underflows_are_found(void)
{
    size_t sizes[] = {40, 500, 4000, 20000};
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        *marker = 0;
        unit_assert_violation(underflow_into_fresh, &sizes[i], "write-after-free");
        ck_assert_int_eq(*marker, 1);
    }
}

START_TEST(an_underflow_into_a_fresh_block_is_found)
{
    underflows_are_found();
}
END_TEST

START_TEST(an_underflow_into_a_fresh_block_is_found_by_looking)
{
    look = true;
    underflows_are_found();
}
END_TEST

/* A pointer to a block of a page that has ended, into one that begins there: into blocks
 * that were never handed out, and into what is not listed yet. */
enum { STALE = 20000, STALE_SIZE = 1000 };
static unsigned char *stale[STALE];

typedef struct life {
    size_t size;      /* of the new page's blocks */
    bool listed;      /* write to a block below capacity, or beyond */
    size_t from_start; /* bytes into the block */
} life_t;

static void write_into_next_life(void *arg)
{
    const life_t *life = arg;
    for (int i = 0; i < STALE; i++)
        stale[i] = bh_malloc(STALE_SIZE);
    for (int i = 0; i < STALE; i++)
        bh_free(stale[i]);
    bh_collect(true);
    for (int i = 0; i < 200; i++) {
        unsigned char *p = bh_malloc(life->size);
        bhi_page_t *page = bhi_block_of((uintptr_t)p, BHI_USE_QUERY).page;
        uint32_t index = bhi_page_capacity(page);
        if (page->memory != BHI_MEMORY_ZERO || (!life->listed && index == page->reserved))
            continue;
        for (uint32_t k = 0; life->listed && k < bhi_page_capacity(page); k++)
            index = bhi_hard_requested(page, k) == 0 ? k : index;
        uintptr_t at = bhi_page_block(page, index) + life->from_start;
        if (index >= page->reserved || at < (uintptr_t)stale[0] - ((uintptr_t)64 << 20) || at > (uintptr_t)stale[0] + ((uintptr_t)64 << 20))
            continue;
        *marker = 1;
        *(volatile unsigned char *)at = 1; /* NOLINT */
        for (int k = 0; !look && k < 3000; k++)
            (void)!bh_malloc(life->size);
        (void)bh_verify();
        return;
    }
}

START_TEST(a_write_into_the_next_life_of_a_page_is_found)
{
    static const size_t sizes[] = {100, 600, 3000, 6000, 20000, 100000};
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int kind = 0; kind < 8; kind++) {
            life_t life = {sizes[i], (kind & 1) != 0, (kind & 2) != 0 ? 0 : sizes[i] / 2};
            look = (kind & 4) != 0;
            if (!life.listed && sizes[i] >= 1000)
                continue; /* all of such a page is listed or kept at once */
            *marker = 0;
            unit_assert_violation(write_into_next_life, &life, "write-after-free");
            ck_assert_int_eq(*marker, 1);
        }
    }
}
END_TEST

/* No bytes asked for, in place, are not a block that was never handed out. */
static void shrink_free_and_write(void *arg)
{
    (void)arg;
    unsigned char *p = bh_malloc(8);
    bool in_place = bh_expand(p, 0);
    bh_free(p);
    ((volatile unsigned char *)p)[3] = 1;
    *marker = in_place ? 1 : 2;
    (void)bh_verify();
}

START_TEST(a_block_of_no_bytes_is_looked_at)
{
    *marker = 0;
    unit_assert_violation(shrink_free_and_write, NULL, "write-after-free");
    ck_assert_int_eq(*marker, 1);
}
END_TEST

/* ------------------------------------------------------- double frees that race */

/* The other thread has read live, the owner frees, the other one goes on. */
static void free_twice_at_once(void *arg)
{
    (void)arg;
    unsigned char *p = bh_malloc(40);
    bhi_block_t block = bhi_block_of((uintptr_t)p, BHI_USE_FREE);
    bh_free(p);
    atomic_store(&block.page->map[block.index].held, 1);
    bhi_hard_wipe_held(block.page, block.index);
    *marker = 1;
    bhi_hard_collect(block.page, block.index / 64);
}

/* The same, and the other thread stops before it has told the owner. */
static void free_twice_and_reuse(void *arg)
{
    (void)arg;
    unsigned char *p = bh_malloc(40);
    bhi_block_t block = bhi_block_of((uintptr_t)p, BHI_USE_FREE);
    bh_free(p);
    atomic_store(&block.page->map[block.index].held, 1);
    *marker = 1;
    for (int i = 0; i < 20000; i++)
        bh_free(bh_malloc(40)); /* never that one: held */
    bh_collect(true);
}

/* The owner's malloc has handed the block out again, in the moment that the other one said
 * held: nothing of that is left, and the block is not to be taken from its new owner. */
static void free_twice_and_take(void *arg)
{
    (void)arg;
    unsigned char *p = bh_malloc(40);
    bhi_block_t block = bhi_block_of((uintptr_t)p, BHI_USE_FREE);
    bhi_hard_wipe_held(block.page, block.index);
    *marker = 1;
    bhi_hard_collect(block.page, block.index / 64);
}

START_TEST(two_frees_at_once_are_found)
{
    unit_body_t *const bodies[] = {free_twice_at_once, free_twice_and_reuse, free_twice_and_take};
    for (int i = 0; i < 3; i++) {
        *marker = 0;
        unit_assert_violation(bodies[i], NULL, "double-free");
        ck_assert_int_eq(*marker, 1);
    }
}
END_TEST

/* ------------------------------------------------------------- pages that wait */

START_TEST(a_few_empty_pages_wait)
{
    enum { N = 60000 / 1008 * 40 };
    static void *p[N];
    unsigned c = bhi_class_of(1000 + BH_CANARY_LEAST);
    const bhi_queue_t *q = &bhi_thread_heap->queues[c];
    bh_free(bh_malloc(1000));
    bh_collect(true);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++)
            p[i] = bh_malloc(1000);
        ck_assert_invariants();
        for (int i = 0; i < N; i++)
            bh_free(p[i]);
        ck_assert_invariants();
            ck_assert_msg(q->length > 4 && q->length <= 10, "%zu pages wait", q->length);
        ck_assert_invariants();
    }
    /* Not for ever: some other class's heartbeats end it. */
    for (int i = 0; i < 400000 && q->length > 1; i++)
        bh_free(bh_malloc(40));
    ck_assert_uint_le(q->length, 1);
    bh_collect(true);
    ck_assert_uint_eq(q->length, 0);
    ck_assert_invariants();
}
END_TEST

int main(void)
{
    bhi_canary_without_aes = getenv("WITHOUT_AES") != NULL;
    Suite *s = suite_create("hardened_reuse");
    TCase *c = tcase_create("all");
    marker = mmap(NULL, BH_OS_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    bh_free(bh_malloc(1));
    if (!bhi_is_hardened() || !BH_HARDEN_CANARIES || !BH_HARDEN_WIPE || !BH_HARDEN_MAP || !BH_HARDEN_QUARANTINE)
        return 0;
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, pairs_come_with_heartbeats);
    tcase_add_test(c, a_freed_block_waits);
    tcase_add_test(c, each_block_is_in_one_place);
    if (!BH_SANITIZED)
        tcase_add_test(c, a_child_chooses_anew);
    if (!BH_SANITIZED)
        tcase_add_test(c, fresh_memory_is_touched_once);
    if (!BH_SANITIZED)
        tcase_add_test(c, what_was_never_handed_out_is_not_touched);
    tcase_add_test(c, an_underflow_into_a_fresh_block_is_found);
    tcase_add_test(c, an_underflow_into_a_fresh_block_is_found_by_looking);
    tcase_add_test(c, a_write_into_the_next_life_of_a_page_is_found);
    tcase_add_test(c, a_block_of_no_bytes_is_looked_at);
    tcase_add_test(c, two_frees_at_once_are_found);
    tcase_add_test(c, a_few_empty_pages_wait);
    suite_add_tcase(s, c);
    return unit_main(s);
}
