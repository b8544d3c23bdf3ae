/* rt/process.h: after start-up nobody writes the process-wide settings. */
#include "bulkhead.h"
#include "os/os.h"
#include "rt/process.h"
#include "support.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

static void *keep;

static void write_settings(void *arg)
{
    (void)arg;
    signal(SIGSEGV, SIG_DFL);
    keep = bh_malloc(1);
    *(volatile size_t *)&bhi_process.block_size = 0;
}

START_TEST(settings_are_read_only)
{
    static unit_child_t child;
    unit_fork(write_settings, NULL, &child);
    ck_assert_msg(WIFSIGNALED(child.status) && WTERMSIG(child.status) == SIGSEGV, "status %#x", (unsigned)child.status);
}
END_TEST

START_TEST(settings_are_sealed_where_the_kernel_can)
{
    keep = bh_malloc(1);
    void *probe = mmap(NULL, BH_OS_PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool seals = bhi_os_seal((uintptr_t)probe, BH_OS_PAGE_SIZE) == 0;
    int r = bhi_os_protect_rw((uintptr_t)&bhi_process_page, sizeof bhi_process_page);
    ck_assert_msg(r == (seals ? -EPERM : 0), "%d", r);
}
END_TEST

START_TEST(filled_in)
{
    keep = bh_malloc(1);
    ck_assert(bhi_process.ready && bhi_process.state != NULL && bhi_process.random_root != NULL);
    ck_assert(bhi_process.block_base % BH_SEGMENT_SIZE == 0 && bhi_process.block_size % BH_SEGMENT_SIZE == 0);
    ck_assert((bhi_process.canary_mul & 1) == 1);
    ck_assert((uintptr_t)keep - bhi_process.block_base < bhi_process.block_size);
    ck_assert_uint_eq((uintptr_t)&bhi_process_page % BH_OS_PAGE_SIZE, 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("process");
    TCase *c = tcase_create("all");
    tcase_add_test(c, settings_are_read_only);
    tcase_add_test(c, settings_are_sealed_where_the_kernel_can);
    tcase_add_test(c, filled_in);
    suite_add_tcase(s, c);
    return unit_main(s);
}
