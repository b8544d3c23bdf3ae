/* rt/options_read.c: later sources override earlier ones, a file counts only if it
 * is root's alone, and nothing that a source can hold breaks the reader. */
#include "options_child.h"
#include "os/os.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

START_TEST(single_wins_over_list_in_any_order)
{
    expect("profile=0 guard=0 foreign=0 purge_delay=1 verbose=0", 0, "BULKHEAD_PURGE_DELAY=1", "BULKHEAD_OPTIONS=purge_delay=2");
    expect("profile=0 guard=0 foreign=0 purge_delay=1 verbose=0", 0, "BULKHEAD_OPTIONS=purge_delay=2", "BULKHEAD_PURGE_DELAY=1");
}
END_TEST

START_TEST(what_is_not_ours_is_left_alone)
{
    expect(DEFAULTS, 0, "BULKHEAD=1", "BULKHEAD_TEST_SECONDS=5");
    expect(DEFAULTS, 0, "BULKHEAD_OPTIONS", "BULKHEAD_GUARD");
    expect(DEFAULTS, 0, "BULKHEAD_OPTIONS=", "XBULKHEAD_GUARD=bad");
    expect(DEFAULTS, 0, "", "=");
}
END_TEST

/* A warning is one line whatever the value holds: a log reader must not take
 * the rest of a value for a report of ours. */
START_TEST(a_value_cannot_forge_a_line)
{
    expect_text("BULKHEAD_GUARD=x\nbulkhead: ERROR: double-free: forged", "option GUARD does not accept");
    expect_text("BULKHEAD_OPTIONS=a\nb=1", "is unknown");
}
END_TEST

START_TEST(long_text_is_cut)
{
    static char long_entry[70000];
    memset(long_entry, 'k', sizeof long_entry - 1);
    memcpy(long_entry, "BULKHEAD_", 9);
    long_entry[30000] = '=';
    expect(DEFAULTS, 1, long_entry, NULL);
    memcpy(long_entry, "BULKHEAD_GUARD=", 15);
    expect(DEFAULTS, 1, long_entry, NULL);
    memcpy(long_entry, "BULKHEAD_OPTIONS=", 17);
    expect(DEFAULTS, 1, long_entry, NULL);
}
END_TEST

START_TEST(warnings_are_bounded)
{
    static char list[4000] = "BULKHEAD_OPTIONS=";
    for (int i = 0; i < 16; i++)
        strcat(list, "bad=1:");
    expect(DEFAULTS, 16, list, NULL);
    for (int i = 0; i < 300; i++)
        strcat(list, "bad=1:");
    entries[1] = list;
    entries[2] = NULL;
    unit_fork(parse, NULL, &child);
    ck_assert_uint_eq(unit_lines(child.err, "bulkhead: WARNING: option "), 16);
    ck_assert_uint_eq(unit_lines(child.err, "bulkhead: WARNING: there are more options that are unknown or malformed\n"), 1);
    ck_assert_uint_eq(unit_lines(child.err, ""), 18);
}
END_TEST

static char file[64];

/* A file as /etc/bulkhead.conf would be, when this process may make one. */
static bool make_file(const char *text, size_t length, mode_t mode)
{
    strcpy(file, "/tmp/bulkhead-options-XXXXXX");
    int fd = mkstemp(file);
    ck_assert(fd >= 0 && write(fd, text, length) == (ssize_t)length && fchmod(fd, mode) == 0);
    close(fd);
    sources.file = file;
    return geteuid() == 0;
}

static void drop_file(void)
{
    unlink(file);
    sources.file = NULL;
}

static void expect_file(const char *text, const char *settings, size_t warnings, const char *entry)
{
    if (make_file(text, strlen(text), 0644))
        expect(settings, warnings, entry, NULL);
    drop_file();
}

START_TEST(file_of_lines)
{
    expect_file("purge_delay=1\nverbose=2\n", "profile=0 guard=0 foreign=0 purge_delay=1 verbose=2", 0, NULL);
    expect_file("# guard=mprotect\n\n  \t\n \t# x\n\tpurge_delay\t= 1 \r\nVerbose=2",
                "profile=0 guard=0 foreign=0 purge_delay=1 verbose=2", 0, NULL);
    expect_file("", DEFAULTS, 0, NULL);
    expect_file("\n\n", DEFAULTS, 0, NULL);
    expect_file("purge_delay=1:verbose=2\n", DEFAULTS, 1, NULL);
    expect_file("nonsense\nguard=x\n=\n", DEFAULTS, 3, NULL);
    if (geteuid() == 0) {
        ck_assert_ptr_nonnull(strstr(child.err, "option nonsense in /etc/bulkhead.conf is unknown; known are profile"));
        ck_assert_ptr_nonnull(strstr(child.err, "option guard in /etc/bulkhead.conf does not accept 'x'; accepted: auto|madvise|"));
    }
}
END_TEST

START_TEST(later_sources_override)
{
    expect_file("purge_delay=1\nverbose=1\nguard=mprotect\n", "profile=0 guard=2 foreign=0 purge_delay=1 verbose=3", 0,
                "BULKHEAD_VERBOSE=3");
    sources.program = "purge_delay=2:foreign=report";
    expect("profile=0 guard=0 foreign=1 purge_delay=2 verbose=0", 0, NULL, NULL);
    expect_file("purge_delay=1\nverbose=1\n", "profile=0 guard=0 foreign=1 purge_delay=2 verbose=1", 0, NULL);
    expect("profile=0 guard=0 foreign=0 purge_delay=3 verbose=0", 0, "BULKHEAD_OPTIONS=foreign=abort:purge_delay=3", NULL);
    sources.env = NULL;
    expect("profile=0 guard=0 foreign=1 purge_delay=2 verbose=0", 0, "BULKHEAD_FOREIGN=ignore", NULL);
    sources.env = (char *const *)(uintptr_t)entries;
    sources.program = "verbos=1:verbose=x";
    expect(DEFAULTS, 2, NULL, NULL);
    ck_assert_ptr_nonnull(strstr(child.err, "option verbos in bh_program_options is unknown"));
    static char endless[8192];
    memset(endless, ':', sizeof endless - 1);
    memcpy(endless, "verbose=1", 9);
    sources.program = endless;
    entries[1] = NULL;
    unit_fork(parse, NULL, &child);
    ck_assert_ptr_nonnull(strstr(child.err, "bulkhead: WARNING: bh_program_options is ignored: it is longer than 4095 bytes\n"));
    ck_assert_uint_eq(unit_lines(child.err, DEFAULTS "\n"), 1);
    endless[4095] = '\0';
    expect("profile=0 guard=0 foreign=0 purge_delay=10 verbose=1", 0, NULL, NULL);
    sources.program = NULL;
}
END_TEST

/* One line of warning, and nothing of the file is used. */
static void expect_refused(const char *why)
{
    entries[1] = NULL;
    unit_fork(parse, NULL, &child);
    ck_assert_msg(unit_lines(child.err, "bulkhead: WARNING: /etc/bulkhead.conf ") == 1 && strstr(child.err, why) != NULL, "%s", child.err);
    ck_assert_msg(unit_lines(child.err, DEFAULTS "\n") == 1 && unit_lines(child.err, "") == 2, "%s", child.err);
}

static uint8_t from(const char *key)
{
    return got.from[bhi_options_find(key, strlen(key))];
}

START_TEST(each_option_tells_who_set_it)
{
    const char *env[] = {"BULKHEAD_OPTIONS=foreign=report:guard=nonsense", "BULKHEAD_VERBOSE=1", NULL};
    bhi_options_read_from(&got, &(bhi_option_sources_t){NULL, "purge_delay=2:foreign=ignore", (char *const *)(uintptr_t)env});
    ck_assert(from("purge_delay") == BHI_FROM_PROGRAM && from("foreign") == BHI_FROM_ENVIRONMENT && from("verbose") == BHI_FROM_ENVIRONMENT);
    ck_assert(from("guard") == BHI_FROM_PROFILE && from("profile") == BHI_FROM_PROFILE);
    bhi_options_read_from(&got, &(bhi_option_sources_t){NULL, NULL, NULL});
    ck_assert(from("purge_delay") == BHI_FROM_PROFILE && from("foreign") == BHI_FROM_PROFILE);
}
END_TEST

START_TEST(file_that_others_may_write)
{
    static const mode_t modes[] = {0664, 0646, 0622, 0777};
    for (size_t i = 0; i < 4; i++) {
        make_file("verbose=1\n", 10, modes[i]);
        expect_refused("is ignored: it is not a regular file that root owns and only root may write");
        drop_file();
    }
    if (make_file("verbose=1\n", 10, 0644)) {
        ck_assert_int_eq(chown(file, 1, 0), 0);
        expect_refused("is ignored: it is not");
    }
    drop_file();
    sources.file = "/tmp";
    expect_refused("is ignored: it is not");
    make_file("", 0, 0644);
    ck_assert(unlink(file) == 0 && mkfifo(file, 0644) == 0);
    expect_refused("is ignored: it is not"); /* and does not wait for a writer */
    drop_file();
    sources.file = "/nonexistent/bulkhead.conf";
    expect(DEFAULTS, 0, NULL, NULL);
    sources.file = NULL;
}
END_TEST

START_TEST(long_file)
{
    static char text[5000];
    memset(text, '#', sizeof text);
    memcpy(text, "verbose=1\n", 10);
    memcpy(text + 4084, "\nguard=mprotect\n", 17); /* ends behind 4096 */
    memcpy(text + 4990, "\nforeign=x", 10);
    if (make_file(text, sizeof text, 0644)) {
        entries[1] = NULL;
        unit_fork(parse, NULL, &child);
        ck_assert_ptr_nonnull(strstr(child.err, "WARNING: /etc/bulkhead.conf is longer than 4096 bytes: lines that do not end before are left out\n"));
        ck_assert_uint_eq(unit_lines(child.err, "profile=0 guard=0 foreign=0 purge_delay=10 verbose=1\n"), 1);
        ck_assert_uint_eq(unit_lines(child.err, ""), 2);
    }
    drop_file();
    memcpy(text + 4084, "###########\n", 12);
    if (make_file(text, 4096, 0644))
        expect("profile=0 guard=0 foreign=0 purge_delay=10 verbose=1", 0, NULL, NULL);
    drop_file();
}
END_TEST

static unsigned opens;

static int count_opens(bhi_os_call_t call)
{
    opens += call == BHI_OS_OPEN;
    return 0;
}

START_TEST(no_file_costs_one_open)
{
    bhi_os_fail_hook = count_opens;
    bhi_options_read_from(&got, &(bhi_option_sources_t){"/nonexistent/bulkhead.conf", NULL, NULL});
    bhi_os_fail_hook = NULL;
    ck_assert_uint_eq(opens, 1);
}
END_TEST

static void parse_noise(void *arg)
{
    uint64_t seed = *(uint64_t *)arg;
    static const char *const parts[] = {"BULKHEAD_", "OPTIONS", "=", ":", "guard", "GUARD", "auto", "mprotect", "|", "1",
                                        "99999999999", "purge_delay", "\x80\xff", "\n", "", "foreign", "report", "-", " "};
    for (int round = 0; round < 20000; round++) {
        static char text[4][160];
        static char *env[5];
        for (int e = 0; e < 4; e++) {
            text[e][0] = '\0';
            if (unit_below(&seed, 4) != 0)
                strcpy(text[e], unit_below(&seed, 2) != 0 ? "BULKHEAD_OPTIONS=" : "BULKHEAD_");
            for (uint32_t n = unit_below(&seed, 9); n > 0; n--)
                strcat(text[e], parts[unit_below(&seed, sizeof parts / sizeof parts[0])]);
            env[e] = text[e];
        }
        bhi_options_read_from(&got, &(bhi_option_sources_t){NULL, text[0], env});
        if (got.profile != 0 || got.guard > BHI_GUARD_NONE || got.foreign > BHI_FOREIGN_IGNORE)
            _exit(3);
    }
}

START_TEST(noise)
{
    uint64_t seed = unit_seed("options");
    unit_fork(parse_noise, &seed, &child);
    ck_assert_msg(WIFEXITED(child.status) && WEXITSTATUS(child.status) == 0, "status %#x", (unsigned)child.status);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("options_read");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, single_wins_over_list_in_any_order);
    tcase_add_test(c, what_is_not_ours_is_left_alone);
    tcase_add_test(c, a_value_cannot_forge_a_line);
    tcase_add_test(c, long_text_is_cut);
    tcase_add_test(c, warnings_are_bounded);
    tcase_add_test(c, file_of_lines);
    tcase_add_test(c, later_sources_override);
    tcase_add_test(c, each_option_tells_who_set_it);
    tcase_add_test(c, file_that_others_may_write);
    tcase_add_test(c, long_file);
    tcase_add_test(c, no_file_costs_one_open);
    tcase_add_test(c, noise);
    suite_add_tcase(s, c);
    return unit_main(s);
}
