/* os/os.c: what each wrapper does, and what it answers when the kernel refuses. */
#include "base/constants.h"
#include "os/os.h"
#include "support.h"

#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <time.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGES 8
#define SIZE (PAGES * BH_OS_PAGE_SIZE)

static uintptr_t reserved(void)
{
    intptr_t at = bhi_os_reserve(0, SIZE);
    ck_assert(!bhi_os_failed(at));
    return (uintptr_t)at;
}

START_TEST(reserve_open_close_release)
{
    uintptr_t at = reserved();
    ck_assert(!unit_readable(at));
    ck_assert_int_eq(bhi_os_open(at, 2 * BH_OS_PAGE_SIZE), 0);
    ck_assert(unit_readable(at) && !unit_readable(at + 2 * BH_OS_PAGE_SIZE));
    volatile char *p = (volatile char *)at;
    ck_assert_int_eq(p[0], 0);
    p[0] = 7;
    ck_assert_int_eq(bhi_os_protect_none(at, BH_OS_PAGE_SIZE), 0);
    ck_assert(!unit_readable(at));
    ck_assert_int_eq(bhi_os_protect_read(at, BH_OS_PAGE_SIZE), 0);
    ck_assert_int_eq(p[0], 7);
    ck_assert_int_eq(bhi_os_protect_rw(at, BH_OS_PAGE_SIZE), 0);
    p[0] = 8;
    ck_assert_int_eq(bhi_os_purge(at, SIZE), 0);
    ck_assert_int_eq(p[0], 0);
    p[0] = 9;
    ck_assert_int_eq(bhi_os_rereserve(at, SIZE), 0);
    ck_assert(!unit_readable(at));
    ck_assert_int_eq(bhi_os_open(at, BH_OS_PAGE_SIZE), 0);
    ck_assert_int_eq(p[0], 0);
    ck_assert_int_eq(bhi_os_release(at, SIZE), 0);
    ck_assert(!unit_readable(at));
}
END_TEST

START_TEST(reserve_never_moves_a_mapping)
{
    uintptr_t at = reserved();
    ck_assert_int_eq(bhi_os_reserve(at, SIZE), -EEXIST);
    ck_assert_int_eq(bhi_os_release(at, SIZE), 0);
    ck_assert_int_eq(bhi_os_reserve(at, SIZE), (intptr_t)at);
}
END_TEST

START_TEST(guards)
{
    uintptr_t at = reserved();
    ck_assert_int_eq(bhi_os_open(at, SIZE), 0);
    if (bhi_os_guard_install(at, BH_OS_PAGE_SIZE) != 0)
        return; /* a kernel without guard regions */
    ck_assert(bhi_os_guard_traps(at) && !bhi_os_guard_traps(at + BH_OS_PAGE_SIZE));
    ck_assert(!unit_readable(at) && unit_readable(at + BH_OS_PAGE_SIZE));
    ck_assert_int_eq(bhi_os_guard_remove(at, BH_OS_PAGE_SIZE), 0);
    ck_assert(unit_readable(at));
    uintptr_t many[PAGES];
    for (size_t i = 0; i < PAGES; i += 2)
        many[i / 2] = at + i * BH_OS_PAGE_SIZE;
    int n = bhi_os_guard_install_many(many, PAGES / 2, BH_OS_PAGE_SIZE);
    ck_assert(n >= 0 && n <= PAGES / 2);
    for (int i = 0; i < PAGES / 2; i++)
        ck_assert(unit_readable(many[i]) == (i >= n));
}
END_TEST

/* ------------------------------------------------------- refused by a test */

static bhi_os_call_t refused_kind;
static int refused_errno;
static unsigned calls[BHI_OS_CALLS];

static int refuse(bhi_os_call_t call)
{
    calls[call]++;
    return call == refused_kind ? refused_errno : 0;
}

static long one_call(bhi_os_call_t kind, uintptr_t at)
{
    char byte;
    switch (kind) {
    case BHI_OS_MMAP: return bhi_os_rereserve(at, SIZE);
    case BHI_OS_MUNMAP: return bhi_os_release(at, SIZE);
    case BHI_OS_MREMAP: return bhi_os_move(at, at + SIZE, SIZE);
    case BHI_OS_MPROTECT: return bhi_os_open(at, SIZE);
    case BHI_OS_MADVISE: return bhi_os_no_huge_pages(at, SIZE);
    case BHI_OS_GUARD: return bhi_os_guard_install(at, BH_OS_PAGE_SIZE);
    case BHI_OS_MSEAL: return bhi_os_seal(at, SIZE);
    case BHI_OS_OPEN:
    case BHI_OS_READ: return bhi_os_read_file("/proc/self/statm", &byte, 1);
    default: return 0;
    }
}

START_TEST(refusals_come_back_as_negated_errno)
{
    static const int numbers[] = {ENOMEM, EINVAL, EPERM, EAGAIN};
    uintptr_t at = reserved();
    for (int kind = 0; kind < BHI_OS_CALLS; kind++) {
        if (kind == BHI_OS_GETRANDOM || kind == BHI_OS_PRLIMIT || kind == BHI_OS_PROCESS_MADVISE)
            continue; /* have their own tests */
        for (size_t i = 0; i < 4; i++) {
            refused_kind = (bhi_os_call_t)kind;
            refused_errno = numbers[i];
            memset(calls, 0, sizeof calls);
            errno = 77;
            bhi_os_fail_hook = refuse;
            long r = one_call(refused_kind, at);
            bhi_os_fail_hook = NULL;
            ck_assert_msg(r == -numbers[i], "kind %d: %ld", kind, r);
            ck_assert_uint_ge(calls[kind], 1);
            ck_assert_int_eq(errno, 77);
        }
    }
    bhi_os_fail_hook = refuse;
    refused_kind = BHI_OS_MMAP;
    ck_assert_int_eq(bhi_os_reserve(0, SIZE), -EAGAIN);
    refused_kind = BHI_OS_PROCESS_MADVISE;
    ck_assert_int_eq(bhi_os_guard_install_many(&at, 1, BH_OS_PAGE_SIZE), 0);
    refused_kind = BHI_OS_PRLIMIT;
    ck_assert(bhi_os_address_space_left() == SIZE_MAX);
    refused_kind = BHI_OS_MADVISE; /* advice that is refused does not fail an open */
    ck_assert_int_eq(bhi_os_open(at, SIZE), 0);
    ck_assert(bhi_os_purge(at, SIZE) < 0);
    bhi_os_fail_hook = NULL;
}
END_TEST

/* purge: the locked variant is tried after EINVAL only. */
static unsigned advice;
static int first_advice_fails(bhi_os_call_t call)
{
    return call == BHI_OS_MADVISE && advice++ == 0 ? refused_errno : 0;
}

START_TEST(purge_tries_the_locked_variant)
{
    uintptr_t at = reserved();
    ck_assert_int_eq(bhi_os_open(at, SIZE), 0);
    bhi_os_fail_hook = first_advice_fails;
    refused_errno = EPERM;
    advice = 0;
    ck_assert_int_eq(bhi_os_purge(at, SIZE), -EPERM);
    ck_assert_uint_eq(advice, 1);
    volatile char *p = (volatile char *)at;
    p[0] = 1;
    refused_errno = EINVAL;
    advice = 0;
    int r = bhi_os_purge(at, SIZE);
    bhi_os_fail_hook = NULL;
    ck_assert_uint_eq(advice, 2);
    ck_assert(r != 0 || p[0] == 0);
}
END_TEST

/* purge_many: what it says is zero, and nothing is said of what the kernel refused. */
START_TEST(purge_of_many_ranges)
{
    uintptr_t at = reserved();
    ck_assert_int_eq(bhi_os_open(at, SIZE), 0);
    volatile char *p = (volatile char *)at;
    uintptr_t addrs[3];
    size_t sizes[3];
    for (size_t i = 0; i < 3; i++) {
        addrs[i] = at + 2 * i * BH_OS_PAGE_SIZE;
        sizes[i] = i == 1 ? 2 * BH_OS_PAGE_SIZE : BH_OS_PAGE_SIZE;
    }
    for (size_t i = 0; i < 6; i++)
        p[i * BH_OS_PAGE_SIZE] = 1;
    size_t done = bhi_os_purge_many(addrs, sizes, 3);
    ck_assert(done == 3 || done == 0); /* a kernel without it */
    static const char after[6] = {0, 1, 0, 0, 0, 1};
    for (size_t i = 0; i < 6; i++)
        ck_assert_int_eq(p[i * BH_OS_PAGE_SIZE], done == 3 ? after[i] : 1);
    p[0] = 1;
    ck_assert_int_eq(bhi_os_release(addrs[1], sizes[1]), 0); /* a hole in the middle */
    ck_assert_uint_le(bhi_os_purge_many(addrs, sizes, 3), 1);
    bhi_os_fail_hook = refuse;
    refused_kind = BHI_OS_PROCESS_MADVISE;
    refused_errno = EPERM;
    p[0] = 1;
    ck_assert_uint_eq(bhi_os_purge_many(addrs, sizes, 1), 0);
    bhi_os_fail_hook = NULL;
    ck_assert_int_eq(p[0], 1);
}
END_TEST

static int fail_getrandom(bhi_os_call_t call)
{
    return call == BHI_OS_GETRANDOM ? EPERM : 0;
}
static int fail_all_entropy(bhi_os_call_t call)
{
    return call == BHI_OS_GETRANDOM || call == BHI_OS_OPEN ? ENOSYS : 0;
}
static int fail_read(bhi_os_call_t call)
{
    return call == BHI_OS_GETRANDOM || call == BHI_OS_READ ? EAGAIN : 0;
}

START_TEST(entropy)
{
    unsigned char a[300], b[300], none[300] = {0};
    ck_assert_int_eq(bhi_os_entropy(a, sizeof a), 0);
    ck_assert_int_eq(bhi_os_entropy(b, sizeof b), 0);
    ck_assert(memcmp(a, b, sizeof a) != 0 && memcmp(a + 200, none, 100) != 0);
    bhi_os_fail_hook = fail_getrandom; /* the device */
    ck_assert_int_eq(bhi_os_entropy(b, sizeof b), 0);
    ck_assert(memcmp(a, b, sizeof a) != 0 && memcmp(b + 200, none, 100) != 0);
    bhi_os_fail_hook = fail_all_entropy;
    ck_assert_int_eq(bhi_os_entropy(b, sizeof b), -ENOSYS);
    bhi_os_fail_hook = fail_read;
    ck_assert(bhi_os_entropy(b, sizeof b) < 0);
    bhi_os_fail_hook = NULL;
}
END_TEST

START_TEST(address_space)
{
    struct rlimit lim = {(rlim_t)1 << 40, RLIM_INFINITY};
    getrlimit(RLIMIT_AS, &lim);
    if (lim.rlim_cur == RLIM_INFINITY)
        ck_assert(bhi_os_address_space_left() == SIZE_MAX);
    lim.rlim_cur = (rlim_t)1 << 45; /* above any use, also where 8 TiB are reserved */
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &lim), 0);
    size_t before = bhi_os_address_space_left();
    ck_assert(before < ((size_t)1 << 45) && before > 0);
    (void)reserved();
    ck_assert_uint_eq(before - bhi_os_address_space_left(), SIZE);
    lim.rlim_cur = (rlim_t)1 << 20; /* less than is in use */
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &lim), 0);
    ck_assert_uint_eq(bhi_os_address_space_left(), 0);
}
END_TEST

START_TEST(files)
{
    char buf[64];
    ck_assert_int_eq(bhi_os_read_file("/nowhere/at/all", buf, sizeof buf), -ENOENT);
    ck_assert_int_eq(bhi_os_read_file("/proc/self/comm", buf, 3), 3);
    ck_assert_int_gt(bhi_os_read_file("/proc/self/comm", buf, sizeof buf), 3);
    int fd = dup(0);
    close(fd);
    for (int i = 0; i < 50; i++)
        (void)bhi_os_read_file("/proc/self/comm", buf, sizeof buf);
    int after = dup(0);
    ck_assert_int_eq(fd, after); /* no descriptor was left open */
    close(after);
}
END_TEST

/* Trusted is what root owns and nobody else may write; only root can make one. */
START_TEST(root_files)
{
    char buf[8], path[] = "/tmp/bulkhead-os-XXXXXX";
    ck_assert_int_eq(bhi_os_read_root_file("/nowhere/at/all", buf, sizeof buf), -ENOENT);
    ck_assert_int_eq(bhi_os_read_root_file("/", buf, sizeof buf), -EUCLEAN);
    ck_assert_int_eq(bhi_os_read_root_file("/dev/null", buf, sizeof buf), -EUCLEAN);
    int fd = mkstemp(path), next = dup(0);
    close(next);
    ck_assert(fd >= 0 && write(fd, "0123456789", 10) == 10);
    ck_assert_int_eq(fchmod(fd, 0620), 0);
    ck_assert_int_eq(bhi_os_read_root_file(path, buf, sizeof buf), -EUCLEAN);
    ck_assert_int_eq(fchmod(fd, 0644), 0);
    ck_assert_int_eq(bhi_os_read_root_file(path, buf, sizeof buf), geteuid() == 0 ? 8 : -EUCLEAN);
    if (geteuid() == 0) {
        ck_assert_int_eq(bhi_os_read_root_file(path, buf, 3), 3);
        ck_assert(fchown(fd, 1, 0) == 0 && bhi_os_read_root_file(path, buf, sizeof buf) == -EUCLEAN);
    }
    unlink(path);
    close(fd);
    fd = dup(0);
    ck_assert_int_lt(fd, next); /* no descriptor was left open */
    close(fd);
}
END_TEST

START_TEST(start_info_time_and_ids)
{
    bhi_os_start_t info;
    bhi_os_start_info(&info);
    ck_assert_ptr_nonnull(info.env);
    ck_assert_ptr_eq(info.at_random, (const void *)getauxval(AT_RANDOM));
    ck_assert_uint_eq(info.page_size, (size_t)sysconf(_SC_PAGESIZE));
    ck_assert(!info.secure);
    size_t n = 0;
    while (info.env[n] != NULL)
        n++;
    ck_assert_uint_gt(n, 0);
    ck_assert_int_eq(bhi_os_pid(), getpid());
    ck_assert_int_eq(bhi_os_tid(), gettid());
    uint64_t before = bhi_os_now_ms();
    bhi_os_sleep_us(50000);
    uint64_t passed = bhi_os_now_ms() - before;
    ck_assert(passed >= 40 && passed < 10000);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("os");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, reserve_open_close_release);
    tcase_add_test(c, reserve_never_moves_a_mapping);
    tcase_add_test(c, guards);
    tcase_add_test(c, refusals_come_back_as_negated_errno);
    tcase_add_test(c, purge_tries_the_locked_variant);
    tcase_add_test(c, purge_of_many_ranges);
    tcase_add_test(c, entropy);
    if (!BH_SANITIZED) /* their shadow memory is beyond any limit */
        tcase_add_test(c, address_space);
    tcase_add_test(c, files);
    tcase_add_test(c, root_files);
    tcase_add_test(c, start_info_time_and_ids);
    suite_add_tcase(s, c);
    return unit_main(s);
}
