/* Profile fuzz: what follows from a seed, reallocations that move, the cap, and the
 * end of the slots. Runs with BULKHEAD_PROFILE=fuzz.
 *
 *   unit_fuzz_profile layout   prints where the allocator and its blocks lie
 *   unit_fuzz_profile cap      asks for more than the cap */
#include "bulkhead.h"
#include "core/thread.h"
#include "harden/guarded.h"
#include "support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static bool is_guarded(const void *p)
{
    return bhi_guarded_contains((uintptr_t)p);
}

/* ------------------------------------------------------------------------ seed */

#define KEPT 300

/* All kinds of blocks, some freed and resized: a number that changes with any place. */
static uint64_t walk(unsigned steps)
{
    static void *kept[KEPT];
    uint64_t choice = 1, sum = 0;
    for (unsigned i = 0; i < steps; i++) {
        void **at = &kept[unit_below(&choice, KEPT)];
        size_t size = unit_below(&choice, i % 40 == 0 ? 400000 : 3000);
        if (unit_below(&choice, 2) == 0) {
            bh_free(*at);
            *at = bh_malloc(size);
        } else {
            *at = bh_realloc(*at, size + 1);
        }
        sum = (sum ^ (uintptr_t)*at) * 0x9e3779b97f4a7c15u;
    }
    return sum;
}

static void layout(void)
{
    printf("%zx %zx %zx ", (size_t)bhi_process.block_base, (size_t)bhi_process.state, (size_t)bhi_process.guarded_base);
    printf("%llx %llx %llx\n", (unsigned long long)bhi_process.canary_mul, (unsigned long long)walk(4000),
           (unsigned long long)bhi_random_u64(&bhi_state->random));
}

static const char *layout_with(const char *options, char out[128])
{
    char entry[128];
    snprintf(entry, sizeof entry, "BULKHEAD_OPTIONS=%s", options);
    char command[256];
    snprintf(command, sizeof command, "exec /proc/%d/exe layout", getpid());
    putenv(entry);
    FILE *child = popen(command, "r");
    ck_assert_ptr_nonnull(child);
    ck_assert_ptr_nonnull(fgets(out, 128, child));
    ck_assert_int_eq(pclose(child), 0);
    return out;
}

START_TEST(the_same_seed_the_same_layout)
{
    static const char *const ways[] = {"seed=1", "seed=9", "guarded_slots=64", "guarded_sample_rate=3", "guarded_sample_rate=0:guarded_first=0"};
    char first[128], other[128], before[128] = "";
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        layout_with(ways[i], first);
        for (int run = 0; run < 5; run++)
            ck_assert_msg(strcmp(layout_with(ways[i], other), first) == 0, "%s: %s and %s", ways[i], first, other);
        ck_assert_str_ne(first, before);
        strcpy(before, first);
    }
}
END_TEST

START_TEST(no_seed_another_layout)
{
    char first[128], other[128];
    layout_with("seed=0", first);
    ck_assert_str_ne(layout_with("seed=0", other), first);
}
END_TEST

static pid_t copy_raw(void) /* runs no fork handler */
{
    return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

/* As the fork server does it: each child finds what the first one found. */
START_TEST(copies_go_on_with_the_stream)
{
    bh_free(bh_malloc(10));
    for (int way = 0; way < 2; way++) {
        uint64_t got[3];
        for (int i = 0; i < 3; i++) {
            int ends[2];
            ck_assert_int_eq(pipe(ends), 0);
            pid_t pid = way == 0 ? fork() : copy_raw();
            ck_assert_int_ge(pid, 0);
            if (pid == 0) {
                uint64_t sum = walk(1000);
                _exit(write(ends[1], &sum, sizeof sum) == (ssize_t)sizeof sum ? 0 : 1);
            }
            ck_assert_int_eq(read(ends[0], &got[i], sizeof got[i]), (ssize_t)sizeof got[i]);
            waitpid(pid, NULL, 0);
            close(ends[0]);
            close(ends[1]);
        }
        ck_assert(got[0] == got[1] && got[0] == got[2]);
        ck_assert_uint_eq(got[0], walk(1000)); /* and what the parent finds */
        for (unsigned i = 0; way == 0 && i < 3; i++)
            bh_free(bh_malloc(100)); /* another state for the next way */
    }
}
END_TEST

/* --------------------------------------------------------------------- realloc */

START_TEST(realloc_moves)
{
    static const size_t sizes[] = {1, 8, 100, 4096, 60000, 65536, 65537, 100000, 300000, 6000000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t n = sizes[i];
        unsigned char *p = bh_malloc(n);
        memset(p, 7, n);
        for (int change = -1; change <= 1; change++) {
            size_t next = n + (size_t)change;
            if (next == 0)
                continue;
            unsigned char *q = bh_realloc(p, next);
            ck_assert(q != NULL && q != p);
            ck_assert(unit_is(q, n < next ? n : next, 7));
            p = bh_realloc(q, n);
            ck_assert(p != NULL && p != q);
            memset(p, 7, n);
        }
        bh_free(p);
    }
}
END_TEST

/* ------------------------------------------------------------------------- cap */

/* The compiler is not to know what it is. */
static size_t hidden(size_t n)
{
    __asm__ volatile("" : "+r"(n));
    return n;
}

START_TEST(the_cap_gives_null)
{
    size_t cap = (size_t)1 << 30;
    char *p = bh_malloc(100);
    strcpy(p, "kept");
    errno = 0;
    ck_assert(bh_malloc(cap + 1) == NULL && errno == ENOMEM);
    ck_assert(bh_calloc(cap / 8 + 1, 8) == NULL && bh_aligned_alloc(64, cap + 64) == NULL && bh_aligned_alloc_at(64, cap + 64, 16) == NULL);
    ck_assert(bh_realloc(p, cap + 1) == NULL && strcmp(p, "kept") == 0);
    ck_assert(bh_malloc(hidden(SIZE_MAX)) == NULL);
    char *large = bh_malloc(cap);
    ck_assert_ptr_nonnull(large);
    bh_free(large);
    bh_free(p);
}
END_TEST

START_TEST(the_cap_can_end_the_process)
{
    static const char *const end[] = {"BULKHEAD_ALLOC_CAP_ABORT=1", "BULKHEAD_ALLOC_CAP=1m", NULL};
    static const char *const null[] = {"BULKHEAD_ALLOC_CAP=1m", NULL};
    unit_child_t child;
    unit_exec("cap", end, &child);
    ck_assert_msg(WIFSIGNALED(child.status) && WTERMSIG(child.status) == SIGABRT, "%s", child.err);
    ck_assert_uint_eq(unit_lines(child.err, "bulkhead: ERROR: allocation-cap: "), 1);
    ck_assert_ptr_nonnull(strstr(child.err, "(address 0x100001)\n"));
    unit_exec("cap", null, &child);
    ck_assert_msg(WIFEXITED(child.status) && WEXITSTATUS(child.status) == 0, "%s", child.err);
}
END_TEST

/* At the cap, and what no address space has, before the step that may end it. */
static int ask(void)
{
    void *p = bh_malloc((size_t)1 << 20);
    bool right = p != NULL && bh_malloc(hidden(SIZE_MAX / 2)) == NULL && bh_calloc(hidden(SIZE_MAX / 2), 3) == NULL;
    bh_free(p);
    return right && bh_malloc(((size_t)1 << 20) + 1) == NULL ? 0 : 1;
}

/* ----------------------------------------------------------------------- slots */

#define GIB ((uintptr_t)1 << 30)
#define PAGE_TABLE ((uintptr_t)512 * 4096) /* bytes that one page of page tables leads to, where OS pages have 4 KiB */

/* Each fork makes anew the page tables that lead to what is in use. */
START_TEST(little_leads_to_what_is_used)
{
    uintptr_t state = (uintptr_t)bhi_process.state, table = (uintptr_t)bhi_process.guarded->chunks;
    ck_assert_uint_eq(state / PAGE_TABLE, (uintptr_t)bhi_process.guarded / PAGE_TABLE);
    ck_assert_uint_eq(state / PAGE_TABLE, table / PAGE_TABLE);
    ck_assert_uint_eq(state / PAGE_TABLE, (uintptr_t)bhi_thread_heap_get() / PAGE_TABLE);
    ck_assert_uint_eq(state / GIB, bhi_process.guarded_base / GIB);
}
END_TEST

START_TEST(all_are_guarded_until_slots_end)
{
    long slots = bh_option_get_long("guarded_slots");
    static void *kept[1 << 17];
    unsigned n = 0;
    while (n < sizeof kept / sizeof kept[0] && is_guarded(kept[n] = bh_malloc(16)))
        n++;
    ck_assert_msg(n > (unsigned)slots / 2 && n <= (unsigned)slots, "%u of %ld", n, slots);
    /* Beyond, blocks have canaries; a freed slot serves again. */
    ck_assert_ptr_nonnull(kept[n]);
    bh_free(kept[0]);
    kept[0] = bh_malloc(16);
    ck_assert(is_guarded(kept[0]));
    for (unsigned i = 0; i <= n; i++)
        bh_free(kept[i]);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "cap") == 0)
        return ask();
    if (argc > 1) {
        layout();
        return 0;
    }
    Suite *s = suite_create("fuzz_profile");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, the_same_seed_the_same_layout);
    tcase_add_test(c, no_seed_another_layout);
    tcase_add_test(c, copies_go_on_with_the_stream);
    tcase_add_test(c, realloc_moves);
    tcase_add_test(c, the_cap_gives_null);
    tcase_add_test(c, the_cap_can_end_the_process);
#ifdef __x86_64__ /* elsewhere the kernel chooses */
    tcase_add_test(c, little_leads_to_what_is_used);
#endif
    tcase_add_test(c, all_are_guarded_until_slots_end);
    suite_add_tcase(s, c);
    return unit_main(s);
}
