/* harden/chunk.c: the memory of freed large blocks serves others while its addresses
 * trap and wait; nothing of it shows where it must not; what happens when the kernel
 * refuses a move. */
#include "bulkhead.h"
#include "harden/canary.h"
#include "harden/chunk.h"
#include "harden/large.h"
#include "invariants.h"
#include "meta/arena.h"
#include "os/os.h"
#include "support.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define MIB ((size_t)1 << 20)

static unsigned char *take(size_t size)
{
    unsigned char *p = bh_malloc(size);
    ck_assert_ptr_nonnull(p);
    return p;
}

static long faults(void)
{
    struct rusage u;
    ck_assert_int_eq(getrusage(RUSAGE_SELF, &u), 0);
    return u.ru_minflt;
}

static const bhi_segment_t *segment_of(const void *p)
{
    const bhi_arena_t *arena = &bhi_state->arenas[0];
    return &arena->headers[((uintptr_t)p - arena->base) >> BH_SEGMENT_SHIFT];
}

/* Moves need guard regions, and a kernel that knows how. */
static bool moves_work(void)
{
    bh_free(take(MIB));
    return bhi_process.guards_by_madvise && !bhi_state->move_refused;
}

START_TEST(memory_serves_again_and_its_addresses_do_not)
{
    if (!moves_work())
        return;
    unsigned char *earlier = NULL;
    for (int i = 0; i < 40; i++) {
        unsigned char *p = take(MIB);
        ck_assert_ptr_ne(p, earlier);
        ck_assert(earlier == NULL || !unit_readable((uintptr_t)earlier));
        long before = faults();
        memset(p, 0x5a, MIB);
        ck_assert_msg(i < 2 || faults() - before < 64, "round %d: %ld page faults", i, faults() - before);
        bh_free(p);
        ck_assert(!unit_readable((uintptr_t)p) && !unit_readable((uintptr_t)p + MIB - 1));
        ck_assert(segment_of(p)->quarantined == ~(uint64_t)0 && !segment_of(p)->chunk);
        earlier = p;
    }
    ck_assert_invariants();
}
END_TEST

/* All sizes, so that blocks end before and behind what earlier ones reached. */
START_TEST(no_heap_sees_what_another_left)
{
    uint64_t seed = unit_seed("residue");
    bh_heap_t *heaps[2] = {bh_heap_new(), bh_heap_new()};
    for (int i = 0; i < 300; i++) {
        unsigned which = unit_below(&seed, 2);
        size_t size = 512 * 1024 + unit_below(&seed, 3 * MIB);
        unsigned char *p = bh_heap_malloc(heaps[which], size);
        ck_assert_ptr_nonnull(p);
        for (size_t at = 0; at < size; at += 256)
            ck_assert_msg(p[at] == 0 || p[at] == which + 1, "round %d: heap %u sees %u at %zu of %zu", i, which, p[at], at, size);
        memset(p, (int)which + 1, size);
        if (unit_below(&seed, 4) == 0) {
            size_t more = size + unit_below(&seed, MIB / 2);
            p = bh_heap_realloc(heaps[which], p, more);
            ck_assert_ptr_nonnull(p);
            for (size_t at = size; at < more; at += 256)
                ck_assert_msg(p[at] == 0 || p[at] == which + 1, "round %d: grown, heap %u sees %u", i, which, p[at]);
        }
        bh_free(p);
    }
    bh_heap_destroy(heaps[0]);
    bh_heap_destroy(heaps[1]);
    ck_assert_invariants();
}
END_TEST

START_TEST(zeroed_blocks_are_zero)
{
    uint64_t seed = unit_seed("zero");
    for (int i = 0; i < 100; i++) {
        size_t size = 512 * 1024 + unit_below(&seed, 3 * MIB);
        unsigned char *p = bh_calloc(1, size);
        ck_assert_msg(unit_is(p, size, 0), "round %d: %zu bytes", i, size);
        memset(p, 1, size);
        bh_free(p);
    }
}
END_TEST

START_TEST(what_is_kept_is_bounded_and_goes)
{
    static unsigned char *p[100];
    for (size_t i = 0; i < 100; i++)
        memset(p[i] = take(2 * MIB), 1, 2 * MIB);
    for (size_t i = 0; i < 100; i++) {
        bh_free(p[i]);
        ck_assert(bhi_state->dirty_slots << BH_SLOT_SHIFT <= bhi_process.options.large_keep_bytes);
        ck_assert(!unit_readable((uintptr_t)p[i]));
    }
    ck_assert(bhi_state->dirty_slots > 0 || !moves_work());
    bhi_state_lock();
    bhi_purge(0, true, 1u << 30);
    bhi_state_unlock();
    ck_assert_uint_eq(bhi_state->dirty_slots, 0);
    ck_assert_invariants();
}
END_TEST

/* A block below the threshold, or a smaller page, never lies in a chunk. */
START_TEST(chunks_are_for_one_block_at_a_time)
{
    if (!moves_work())
        return;
    uint64_t seed = unit_seed("alone");
    static void *small[2000];
    uint32_t most = (uint32_t)(bhi_large_wants(400 * 1024) ? BH_CLASS_MAX_SIZE - BH_CANARY_LEAST : 400 * 1024);
    for (size_t i = 0; i < 2000; i++) {
        if (i % 20 == 0)
            bh_free(take(MIB));
        small[i] = take(1 + unit_below(&seed, most));
        ck_assert(!segment_of(small[i])->chunk);
    }
    for (size_t i = 0; i < 2000; i++)
        bh_free(small[i]);
    ck_assert_invariants();
}
END_TEST

/* ------------------------------------------------------------------- refusals */

static int refusal;
static int refuse(bhi_os_call_t call)
{
    return call == BHI_OS_MREMAP ? refusal : 0;
}

static const int refusals[] = {EPERM, EINVAL, ENOSYS, ENOMEM, EFAULT, EAGAIN};

START_TEST(a_refused_move_is_the_last)
{
    if (!moves_work())
        return;
    unsigned char *p = take(MIB);
    memset(p, 1, MIB);
    refusal = refusals[_i];
    bhi_os_fail_hook = refuse;
    bh_free(p);
    bhi_os_fail_hook = NULL;
    ck_assert(bhi_state->move_refused && !unit_readable((uintptr_t)p));
    unsigned lost = 0;
    for (uint32_t i = 0; i < bhi_state->arenas[0].top; i++) {
        const bhi_segment_t *s = &bhi_state->arenas[0].headers[i];
        lost += s->kind == BHI_SEGMENT_SLOTS && s->quarantined == ~(uint64_t)0;
    }
    /* That of the block before, and one that may have a hole. */
    ck_assert_uint_eq(lost, _i < 3 ? 1 : 2);
    for (int i = 0; i < 50; i++) {
        p = take(MIB);
        memset(p, 1, MIB);
        bh_free(p);
        ck_assert(!unit_readable((uintptr_t)p));
    }
    ck_assert_invariants();
}
END_TEST

/* A move forgets that memory is locked: none of a mapping that others share. */
START_TEST(locked_memory_stays)
{
    if (!moves_work())
        return;
    bh_free(take(MIB));
    unsigned char *before = take(MIB), *p = take(MIB), *other = take(MIB); /* the first is where memory was moved to */
    if (mlock(p, MIB) != 0)
        return; /* more than this process may lock */
    ck_assert(bhi_os_is_locked((uintptr_t)p, BH_OS_PAGE_SIZE) && !bhi_os_is_locked((uintptr_t)other, BH_OS_PAGE_SIZE));
    const bhi_segment_t *s = segment_of(p);
    ck_assert(!s->moved);
    bh_free(p);
    ck_assert(s->chunk);
    bh_free(before);
    bh_free(other);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("chunk");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    if (!BH_HARDEN_CHUNKS)
        return 0;
    tcase_add_test(c, memory_serves_again_and_its_addresses_do_not);
    tcase_add_test(c, no_heap_sees_what_another_left);
    tcase_add_test(c, zeroed_blocks_are_zero);
    tcase_add_test(c, what_is_kept_is_bounded_and_goes);
    tcase_add_test(c, chunks_are_for_one_block_at_a_time);
    tcase_add_loop_test(c, a_refused_move_is_the_last, 0, (int)(sizeof refusals / sizeof refusals[0]));
    tcase_add_test(c, locked_memory_stays);
    suite_add_tcase(s, c);
    return unit_main(s);
}
