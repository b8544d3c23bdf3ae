/* core/thread.c and owner.c: a forked child of a process with threads. */
#include "bulkhead.h"
#include "core/free.h"
#include "core/heap.h"
#include "core/thread.h"
#include "harden/guard.h"
#include "harden/large.h"
#include "invariants.h"
#include "meta/arena.h"
#include "os/os.h"
#include "support.h"

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void *_Atomic slots[512];
static _Atomic(bool) stop;

static void *busy(void *arg)
{
    uint64_t seed = (uint64_t)(uintptr_t)arg;
    while (!atomic_load(&stop)) {
        uint32_t at = unit_below(&seed, 512);
        uint32_t kind = unit_below(&seed, 60);
        size_t size = kind == 0 ? (size_t)(300 + 400 * (at & 1)) << 10 : unit_below(&seed, 2000);
        unsigned char *p = bh_malloc(size + 1);
        p[0] = (unsigned char)at;
        p[size] = (unsigned char)at;
        bh_free(atomic_exchange(&slots[at], p));
    }
    return NULL;
}

/* The child frees everything that it inherited and allocates at will. */
static void child_works(void *arg)
{
    (void)arg;
    for (int i = 0; i < 512; i++) {
        unsigned char *p = atomic_exchange(&slots[i], NULL);
        if (p != NULL && p[0] != (unsigned char)i)
            _exit(3);
        bh_free(p);
    }
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 512; i++) {
            size_t size = (size_t)i * (i % 50 == 0 ? 1700 : 7);
            unsigned char *p = bh_zalloc(size);
            if (p == NULL)
                _exit(4);
            if (!unit_is(p, size, 0))
                _exit(5);
            memset(p, 0xff, size);
            bh_free(atomic_exchange(&slots[i], p));
        }
    }
    for (int i = 0; i < 512; i++)
        bh_free(atomic_exchange(&slots[i], NULL));
    bh_collect(true);
    const char *text = inv_heap(bhi_thread_heap);
    if (text != NULL) {
        (void)!write(2, text, strlen(text));
        _exit(6);
    }
}

START_TEST(children_of_a_busy_process)
{
    uint64_t seed = unit_seed("fork");
    static unit_child_t child;
    pthread_t threads[3];
    ck_assert_ptr_nonnull(bhi_thread_heap_get());
    for (int t = 0; t < 3; t++)
        pthread_create(&threads[t], NULL, busy, (void *)(uintptr_t)unit_random(&seed));
    for (int i = 0; i < 25; i++) {
        void *mine = bh_malloc((size_t)i * 100);
        unit_fork(child_works, NULL, &child);
        ck_assert_msg(WIFEXITED(child.status) && WEXITSTATUS(child.status) == 0 && child.length == 0, "status %#x, '%s'",
                      (unsigned)child.status, child.err);
        bh_free(mine);
    }
    atomic_store(&stop, true);
    for (int t = 0; t < 3; t++)
        pthread_join(threads[t], NULL);
    ck_assert_invariants();
}
END_TEST

static void *leave_some(void *arg)
{
    for (int i = 0; i < 100; i++)
        atomic_store(&slots[i], memset(bh_malloc(100), i, 100));
    return arg;
}

static void *free_remote(void *arg)
{
    bh_free(arg);
    return NULL;
}

static void grandchild(void *arg)
{
    static unit_child_t child;
    child_works(arg);
    unit_fork(child_works, NULL, &child);
    if (!WIFEXITED(child.status) || WEXITSTATUS(child.status) != 0)
        _exit(7);
    unit_thread(leave_some, NULL);
}

static void *free_remote_with_heap(void *arg)
{
    bh_free(bh_malloc(1));
    bh_free(arg);
    return NULL;
}

static void repairs(void *(*remote)(void *))
{
    bhi_heap_t *heap = bhi_thread_heap_get();
    void *p[64];
    for (int i = 0; i < 64; i++)
        p[i] = bh_malloc(128);
    for (int i = 0; i < 64; i += 2)
        unit_thread(remote, p[i]);
    ck_assert_ptr_nonnull(atomic_load(&heap->pending));
    pid_t pid = fork();
    if (pid == 0) {
        if (atomic_load(&heap->pending) != NULL || heap->pending_mine != NULL)
            _exit(1);
        for (int i = 1; i < 64; i += 2)
            bh_free(p[i]);
        _exit(inv_all(true, false) == NULL ? 0 : 2);
    }
    int status;
    waitpid(pid, &status, 0);
    ck_assert_msg(status == 0, "%#x: 0x100 pending not forgotten, 0x200 invariants", (unsigned)status);
    ck_assert_ptr_nonnull(atomic_load(&heap->pending)); /* the parent's are its own */
}

START_TEST(child_repairs_what_was_announced)
{
    repairs(free_remote_with_heap);
}
END_TEST

/* The only heap of a process has remote frees too: from threads that only free. */
START_TEST(child_repairs_what_threads_without_a_heap_announced)
{
    repairs(free_remote);
}
END_TEST

/* ------------------------------------------------ a thread in the middle of a trap */

static bhi_page_t *page_at(const void *p)
{
    bhi_arena_t *arena = bhi_arena_of((uintptr_t)p);
    return bhi_desc_first(bhi_desc_at(arena->descs, (uintptr_t)p - arena->base));
}

/* What hold() of core/free.c and bhi_large_trap have done when another thread forks: the
 * kernel has closed `closed` bytes of the block, and no header says so. */
static void stop_in_trap(void *p, size_t closed)
{
    bhi_page_t *page = page_at(p);
    ck_assert(bhi_map_set_held(page->map, 0));
    page->local_free = BHI_LARGE_TRAPPING;
    if (bhi_guard_range((uintptr_t)p, closed) != BHI_REGION_ALL)
        ck_assert_int_eq(bhi_os_protect_none((uintptr_t)p, closed), 0);
}

static void uses_such_blocks(void *arg)
{
    size_t size = *(const size_t *)arg;
    for (int i = 0; i < 40; i++) {
        unsigned char *p = bh_zalloc(size);
        if (p == NULL || !unit_is(p, size, 0))
            _exit(4);
        bh_free(memset(p, 0xff, size));
    }
    const char *text = inv_all(true, false);
    if (text != NULL)
        (void)!write(2, text, strlen(text));
}

static void *until_stopped(void *arg)
{
    while (!atomic_load(&stop))
        usleep(1000);
    return arg;
}

START_TEST(child_takes_back_what_another_thread_was_trapping)
{
    if (!BH_HARDEN_MAP || !BH_HARDEN_LARGE)
        return;
    static const size_t sizes[] = {(size_t)600 << 10, (size_t)1 << 20, (size_t)3 << 20, (size_t)9 << 20};
    static unit_child_t child;
    size_t size = sizes[_i / 2];
    pthread_t other;
    pthread_create(&other, NULL, until_stopped, NULL);
    void *p = memset(bh_malloc(size), 1, size);
    stop_in_trap(p, _i % 2 == 0 ? BH_OS_PAGE_SIZE : size & ~(BH_OS_PAGE_SIZE - 1));
    unit_fork(uses_such_blocks, &size, &child);
    ck_assert_msg(child.status == 0 && child.length == 0, "%#x %s", (unsigned)child.status, child.err);
    atomic_store(&stop, true);
    pthread_join(other, NULL);
}
END_TEST

static void double_free_in_child(void *arg)
{
    bh_free(arg);
    bh_free(arg);
}

START_TEST(misuse_is_found_in_the_child_too)
{
    if (!BH_HARDEN_MAP)
        return;
    ck_assert_ptr_nonnull(bhi_thread_heap_get());
    unit_thread(leave_some, NULL);
    unit_assert_violation(double_free_in_child, slots[7], "double-free");   /* an ended thread's */
    unit_assert_violation(double_free_in_child, bh_malloc(9), "double-free"); /* our own */
    unit_assert_quiet(grandchild, NULL);
}
END_TEST

/* Other libraries' fork handlers may allocate. */
static void handler(void)
{
    bh_free(bh_malloc(300));
    bh_free(bh_malloc((size_t)300 << 10));
}

START_TEST(allocation_in_fork_handlers)
{
    static unit_child_t child;
    ck_assert_ptr_nonnull(bhi_thread_heap_get());
    pthread_atfork(handler, handler, handler);
    for (int i = 0; i < 10; i++) {
        unit_fork(child_works, NULL, &child);
        ck_assert_msg(child.status == 0, "%#x %s", (unsigned)child.status, child.err);
    }
    ck_assert_invariants();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("fork");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, children_of_a_busy_process);
    tcase_add_test(c, child_repairs_what_was_announced);
    tcase_add_test(c, child_repairs_what_threads_without_a_heap_announced);
    tcase_add_loop_test(c, child_takes_back_what_another_thread_was_trapping, 0, 8);
    tcase_add_test(c, misuse_is_found_in_the_child_too);
    tcase_add_test(c, allocation_in_fork_handlers);
    suite_add_tcase(s, c);
    return unit_main(s);
}
