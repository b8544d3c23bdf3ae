/* os/lock.h: exclusion under contention, sleeping waiters woken, reset. */
#include "os/lock.h"
#include "support.h"

#include <pthread.h>

#define THREADS 8
#define ROUNDS 20000

static bhi_lock_t lock;
static long counter, inside;

static void *count(void *arg)
{
    for (int i = 0; i < ROUNDS; i++) {
        bhi_lock_take(&lock);
        ck_assert_int_eq(++inside, 1);
        counter++;
        if (i % 1000 == 0)
            bhi_os_sleep_us(50); /* long enough that the others stop spinning */
        inside--;
        bhi_lock_give(&lock);
    }
    return arg;
}

START_TEST(contention)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, count, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_int_eq(counter, (long)THREADS * ROUNDS);
    ck_assert_uint_eq(atomic_load(&lock.state), 0);
}
END_TEST

static _Atomic(int) got;
static void *take_once(void *arg)
{
    bhi_lock_take(&lock);
    atomic_fetch_add(&got, 1);
    bhi_lock_give(&lock);
    return arg;
}

START_TEST(every_sleeper_wakes)
{
    pthread_t threads[THREADS];
    bhi_lock_take(&lock);
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, take_once, NULL), 0);
    bhi_os_sleep_us(30000);
    ck_assert_int_eq(atomic_load(&got), 0);
    ck_assert_uint_eq(atomic_load(&lock.state), 2);
    bhi_lock_give(&lock);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_int_eq(atomic_load(&got), THREADS);
}
END_TEST

START_TEST(reset_frees_a_lock_that_nobody_will_give)
{
    bhi_lock_take(&lock);
    atomic_store(&lock.state, 2);
    bhi_lock_reset(&lock);
    bhi_lock_take(&lock);
    bhi_lock_give(&lock);
    ck_assert_uint_eq(atomic_load(&lock.state), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("lock");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, contention);
    tcase_add_test(c, every_sleeper_wakes);
    tcase_add_test(c, reset_frees_a_lock_that_nobody_will_give);
    suite_add_tcase(s, c);
    return unit_main(s);
}
