/* A heap's notes of spans. */
#include "core/heap.h"
#include "core/residue.h"
#include "core/thread.h"
#include "support.h"

static void take_with(uint32_t count)
{
    bhi_heap_t *heap = bhi_thread_heap_get();
    ck_assert(heap != NULL);
    heap->left = (bhi_left_t){.count = count};
    for (uint32_t i = 0; i < BHI_LEFT_MOST; i++)
        heap->left.size_class[i] = 3;
    bhi_state_lock();
    bhi_residue_take(heap, 5, 1);
    bhi_state_unlock();
}

static void full(void *arg)
{
    (void)arg;
    take_with(BHI_LEFT_MOST);
}

static void beyond(void *arg)
{
    (void)arg;
    take_with(BHI_LEFT_MOST + 1);
}

START_TEST(more_notes_than_there_is_room_for_are_damage)
{
    unit_assert_quiet(full, NULL);
    unit_assert_violation(beyond, NULL, "corrupt-control");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("residue");
    TCase *tcase = tcase_create("notes");
    tcase_add_test(tcase, more_notes_than_there_is_room_for_are_damage);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
