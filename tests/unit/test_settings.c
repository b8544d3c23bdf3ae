/* rt/settings.c: settings change only through their functions, not at all where
 * the kernel refuses, and never again once sealed. */
#include "bulkhead.h"
#include "os/os.h"
#include "rt/process.h"
#include "rt/settings.h"
#include "support.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void callback(bool force, unsigned long long heartbeat, void *arg)
{
    (void)force;
    (void)heartbeat;
    ++*(_Atomic(unsigned) *)arg;
}

static _Atomic(unsigned) called;

static bool page_is_writable(void)
{
    /* The kernel writes into the page on our behalf: EFAULT where it may not. */
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert(write(ends[1], "\0", 1) == 1);
    bool can = read(ends[0], &bhi_settings_page.whole_os_pages[BH_OS_PAGE_SIZE - 1], 1) == 1;
    close(ends[0]);
    close(ends[1]);
    return can;
}

static bool kernel_seals(void)
{
    void *probe = mmap(NULL, BH_OS_PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return bhi_os_seal((uintptr_t)probe, BH_OS_PAGE_SIZE) == 0;
}

START_TEST(pages_of_their_own)
{
    bh_free(bh_malloc(1));
    ck_assert_uint_eq((uintptr_t)&bhi_settings_page % BH_OS_PAGE_SIZE, 0);
    ck_assert_uint_eq(sizeof bhi_settings_page % BH_OS_PAGE_SIZE, 0);
    ck_assert(!page_is_writable());
}
END_TEST

static void write_it(void *arg)
{
    (void)arg;
    signal(SIGSEGV, SIG_DFL);
    bh_free(bh_malloc(1));
    dprintf(2, "now\n");
    *(volatile uint32_t *)&bhi_settings.purge_delay = 0;
    dprintf(2, "written\n");
}

START_TEST(read_only_between_changes)
{
    static unit_child_t child;
    for (int changed = 0; changed < 2; changed++) {
        unit_fork(write_it, NULL, &child);
        ck_assert_msg(WIFSIGNALED(child.status) && WTERMSIG(child.status) == SIGSEGV, "status %#x", (unsigned)child.status);
        ck_assert_str_eq(child.err, "now\n");
        ck_assert_int_eq(bh_option_set("purge_delay", "20"), 0);
        ck_assert(bh_register_deferred_free(callback, &called));
    }
}
END_TEST

START_TEST(changes_act)
{
    ck_assert_int_eq(bh_option_set("purge_delay", "21"), 0);
    ck_assert(atomic_load(&bhi_settings.purge_delay) == 21 && bh_option_get_long("purge_delay") == 21);
    ck_assert(bh_register_deferred_free(callback, &called));
    bh_free(bh_malloc(10));
    bh_collect(true);
    ck_assert_uint_gt(called, 0);
    ck_assert(bh_register_deferred_free(NULL, NULL));
    unsigned before = called;
    bh_collect(true);
    ck_assert_uint_eq(called, before);
}
END_TEST

static unsigned calls_left;

static int refuse_mprotect(bhi_os_call_t call)
{
    if (call != BHI_OS_MPROTECT || calls_left-- > 0)
        return 0;
    calls_left = 0;
    return EPERM;
}

START_TEST(a_kernel_that_refuses)
{
    ck_assert_int_eq(bh_option_set("purge_delay", "22"), 0);
    calls_left = 0;
    bhi_os_fail_hook = refuse_mprotect;
    errno = 0;
    int set = bh_option_set("purge_delay", "23"), error = errno;
    bool registered = bh_register_deferred_free(callback, &called);
    bhi_os_fail_hook = NULL;
    ck_assert(set == -1 && error == EPERM && !registered);
    ck_assert(bh_option_get_long("purge_delay") == 22 && bhi_settings.deferred_fun == 0 && !page_is_writable());

    /* Opened, but not closed again: the change counts, and the next one closes. */
    calls_left = 1;
    bhi_os_fail_hook = refuse_mprotect;
    set = bh_option_set("purge_delay", "24");
    bhi_os_fail_hook = NULL;
    ck_assert(set == 0 && bh_option_get_long("purge_delay") == 24 && page_is_writable());
    ck_assert(bh_option_set("purge_delay", "25") == 0 && !page_is_writable());
}
END_TEST

static void expect_sealed(void)
{
    errno = 0;
    ck_assert(bh_option_set("purge_delay", "26") == -1 && errno == EPERM);
    ck_assert(!bh_register_deferred_free(callback, &called) && !bh_register_deferred_free(NULL, NULL));
    ck_assert(bh_option_get_long("purge_delay") != 26 && !page_is_writable());
    ck_assert(bh_option_set("purge_delay", "x") == -1 && errno == EINVAL);
    int r = bhi_os_protect_rw((uintptr_t)&bhi_settings_page, sizeof bhi_settings_page);
    ck_assert_msg(r == (kernel_seals() ? -EPERM : 0), "%d", r);
}

/* Each in a child of Check's: a seal lasts. */
START_TEST(sealed_for_good)
{
    ck_assert(bh_register_deferred_free(callback, &called));
    ck_assert(bh_seal());
    expect_sealed();
    ck_assert(bh_seal() && bh_seal());
    bh_free(bh_malloc(10));
    bh_collect(true);
    ck_assert_uint_gt(called, 0); /* what was set stays in force */
}
END_TEST

static void in_child(void *arg)
{
    (void)arg;
    expect_sealed();
}

START_TEST(sealed_in_a_child_too)
{
    ck_assert(bh_seal());
    unit_assert_quiet(in_child, NULL);
}
END_TEST

START_TEST(seal_where_mprotect_is_refused)
{
    bh_free(bh_malloc(1));
    calls_left = 0;
    bhi_os_fail_hook = refuse_mprotect;
    bool sealed = bh_seal();
    bhi_os_fail_hook = NULL;
    ck_assert_msg(sealed == kernel_seals(), "%d", sealed);
    if (sealed)
        expect_sealed();
}
END_TEST

static int refuse_mseal(bhi_os_call_t call)
{
    return call == BHI_OS_MSEAL ? ENOSYS : 0;
}

START_TEST(seal_without_the_kernel_call)
{
    bh_free(bh_malloc(1));
    bhi_os_fail_hook = refuse_mseal;
    ck_assert(bh_seal());
    bhi_os_fail_hook = NULL;
    errno = 0;
    ck_assert(bh_option_set("purge_delay", "26") == -1 && errno == EPERM && !page_is_writable());
    ck_assert(!bh_register_deferred_free(callback, &called) && bh_seal());
}
END_TEST

START_TEST(a_seal_that_leaves_the_page_open_is_no_success)
{
    bh_free(bh_malloc(1));
    calls_left = 1;
    bhi_os_fail_hook = refuse_mprotect;
    bool sealed = bh_seal();
    bhi_os_fail_hook = NULL;
    ck_assert(!sealed && page_is_writable());
    ck_assert(bh_seal() && !page_is_writable());
}
END_TEST

START_TEST(option_seal)
{
    static unit_child_t child;
    unit_exec("sealed", (const char *[]){"BULKHEAD_SEAL=1", NULL}, &child);
    ck_assert_str_eq(child.err, "no no\n");
    unit_exec("sealed", NULL, &child);
    ck_assert_str_eq(child.err, "yes yes\n");
}
END_TEST

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "sealed") == 0) {
        dprintf(2, "%s %s\n", bh_option_set("purge_delay", "1") == 0 ? "yes" : "no",
                bh_register_deferred_free(callback, &called) ? "yes" : "no");
        return 0;
    }
    Suite *s = suite_create("settings");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, pages_of_their_own);
    tcase_add_test(c, read_only_between_changes);
    tcase_add_test(c, changes_act);
    tcase_add_test(c, a_kernel_that_refuses);
    tcase_add_test(c, sealed_for_good);
    tcase_add_test(c, sealed_in_a_child_too);
    tcase_add_test(c, seal_where_mprotect_is_refused);
    tcase_add_test(c, seal_without_the_kernel_call);
    tcase_add_test(c, a_seal_that_leaves_the_page_open_is_no_success);
    tcase_add_test(c, option_seal);
    suite_add_tcase(s, c);
    return unit_main(s);
}
