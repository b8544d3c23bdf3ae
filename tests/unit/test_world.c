/* os/world.c: other threads stand still between stop and go, and go on afterwards. */
#include "os/world.h"
#include "support.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

enum { THREADS = 6 };
static _Atomic(unsigned long) steps[THREADS];
static _Atomic(bool) over;

static void *run(void *arg)
{
    size_t i = (size_t)(uintptr_t)arg;
    while (!atomic_load(&over)) {
        atomic_fetch_add(&steps[i], 1);
        if (i % 2 == 1)
            usleep(100);
    }
    return NULL;
}

static unsigned long sum(void)
{
    unsigned long s = 0;
    for (size_t i = 0; i < THREADS; i++)
        s += atomic_load(&steps[i]);
    return s;
}

START_TEST(threads_stand_still_and_go_on)
{
    pthread_t t[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&t[i], NULL, run, (void *)(uintptr_t)i), 0);
    for (int round = 0; round < 20; round++) {
        ck_assert_uint_eq(bhi_os_world_stop(), 0);
        unsigned long before = sum();
        usleep(3000);
        ck_assert_uint_eq(sum(), before);
        bhi_os_world_go();
        for (int i = 0; i < 1000 && sum() == before; i++)
            usleep(1000);
        ck_assert_uint_gt(sum(), before);
    }
    atomic_store(&over, true);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
}
END_TEST

static void *run_blocked(void *arg)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    atomic_store(&steps[0], 1);
    while (!atomic_load(&over))
        usleep(100);
    pthread_sigmask(SIG_UNBLOCK, &all, NULL); /* what waited must not end us */
    return arg;
}

START_TEST(who_blocks_signals_is_counted)
{
    pthread_t t;
    ck_assert_int_eq(pthread_create(&t, NULL, run_blocked, NULL), 0);
    while (atomic_load(&steps[0]) == 0)
        usleep(100);
    ck_assert_uint_eq(bhi_os_world_stop(), 1);
    bhi_os_world_go();
    atomic_store(&over, true);
    pthread_join(t, NULL);
    struct sigaction now;
    for (int s = SIGRTMIN; s <= SIGRTMAX; s++)
        ck_assert(sigaction(s, NULL, &now) != 0 || now.sa_handler == SIG_DFL);
}
END_TEST

START_TEST(alone)
{
    ck_assert_uint_eq(bhi_os_world_stop(), 0);
    bhi_os_world_go();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("world");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, UNIT_TIMEOUT);
    tcase_add_test(tc, threads_stand_still_and_go_on);
    tcase_add_test(tc, who_blocks_signals_is_counted);
    tcase_add_test(tc, alone);
    suite_add_tcase(suite, tc);
    return unit_main(suite);
}
