/* core/init.c: start-up as a new process sees it, options and privileges. */
#include "bulkhead.h"
#include "core/init.h"
#include "invariants.h"
#include "support.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static unit_child_t child;
static void *before_constructors;

/* Runs before every constructor, ours included. In the mode "secure" it makes
 * the kernel's mark of a privileged process, which start-up is to believe. */
static void first_of_all(int argc, char **argv, char **env)
{
    if (argc > 1 && strcmp(argv[1], "secure") == 0) {
        while (*env != NULL)
            env++;
        for (Elf64_auxv_t *a = (Elf64_auxv_t *)(env + 1); a->a_type != AT_NULL; a++) {
            if (a->a_type == AT_SECURE)
                a->a_un.a_val = 1;
        }
    }
    before_constructors = bh_malloc(50);
}
__attribute__((section(".preinit_array"), used)) static void (*const first_pointer)(int, char **, char **) = first_of_all;

START_TEST(allocation_before_any_constructor)
{
    ck_assert_ptr_nonnull(before_constructors);
    ck_assert_uint_ge(bh_usable_size(before_constructors), 50);
    ck_assert(bhi_process.ready && bhi_init());
    bh_free(before_constructors);
    ck_assert_invariants();
}
END_TEST

static void expect(const char *mode, const char *const *env, const char *text)
{
    unit_exec(mode, env, &child);
    ck_assert_msg(WIFEXITED(child.status) && WEXITSTATUS(child.status) == 0, "%#x %s", (unsigned)child.status, child.err);
    ck_assert_msg(strstr(child.err, text) != NULL, "no '%s' in '%s'", text, child.err);
}

START_TEST(options_reach_the_process)
{
    expect("show", NULL, "guard=0 foreign=0 purge_delay=10");
    expect("show", (const char *[]){"BULKHEAD_GUARD=mprotect", NULL}, "guard=2 foreign=0 purge_delay=10");
    expect("show", (const char *[]){"BULKHEAD_OPTIONS=purge_delay=77:foreign=report", NULL}, "guard=0 foreign=1 purge_delay=77");
    expect("show", (const char *[]){"BULKHEAD_NONSENSE=1", NULL}, "WARNING: option NONSENSE");
    ck_assert_uint_eq(unit_lines(child.err, ""), 2);
}
END_TEST

/* The page of settings is changed for it and closed again, before start-up closes it. */
START_TEST(with_a_file_for_reports)
{
    char entry[64] = "BULKHEAD_LOG_FILE=";
    char *path = entry + strlen(entry);
    strcpy(path, "/tmp/bulkhead-init-XXXXXX");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    expect("show", (const char *[]){entry, NULL}, "guard=0 foreign=0 purge_delay=10");
    expect("show", (const char *[]){entry, "BULKHEAD_SEAL=1", NULL}, "guard=0 foreign=0 purge_delay=10");
    unlink(path);
    close(fd);
}
END_TEST

START_TEST(privileged_processes_ignore_the_environment)
{
    expect("secure", (const char *[]){"BULKHEAD_FOREIGN=ignore", "BULKHEAD_PURGE_DELAY=5", "BULKHEAD_NONSENSE=1", NULL},
           "guard=0 foreign=0 purge_delay=10");
    ck_assert_uint_eq(unit_lines(child.err, ""), 1);
}
END_TEST

START_TEST(verbose_prints_the_settings_and_what_is_weaker)
{
    expect("show", (const char *[]){"BULKHEAD_VERBOSE=1", NULL}, "bulkhead: profile=secure\n");
    ck_assert_ptr_nonnull(strstr(child.err, "bulkhead: foreign=abort\n"));
    ck_assert_ptr_null(strstr(child.err, "weaker"));
    expect("show", (const char *[]){"BULKHEAD_VERBOSE=1", "BULKHEAD_FOREIGN=ignore", NULL}, "bulkhead: foreign=ignore\n");
    ck_assert_ptr_nonnull(strstr(child.err, "weaker than the default"));
}
END_TEST

int main(int argc, char **argv)
{
    if (argc > 1) {
        (void)argv;
        const bhi_options_t *o = &bhi_process.options;
        dprintf(2, "guard=%u foreign=%u purge_delay=%u\n", o->guard, o->foreign, o->purge_delay);
        return 0;
    }
    Suite *s = suite_create("init");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, allocation_before_any_constructor);
    tcase_add_test(c, options_reach_the_process);
    tcase_add_test(c, with_a_file_for_reports);
    tcase_add_test(c, privileged_processes_ignore_the_environment);
    tcase_add_test(c, verbose_prints_the_settings_and_what_is_weaker);
    suite_add_tcase(s, c);
    return unit_main(s);
}
