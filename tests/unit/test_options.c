/* rt/options.c and options_read.c: every key in every source, what is wrong costs
 * one line, later sources override earlier ones, and nothing that an environment
 * can hold breaks the parser. */
#include "rt/options.h"
#include "os/os.h"
#include "rt/format.h"
#include "support.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static bhi_options_t got;
static const char *entries[8];
static bhi_option_sources_t sources = {NULL, NULL, (char *const *)(uintptr_t)entries};

/* Child: parses `entries` and tells what came out on its last line. */
static void parse(void *arg)
{
    (void)arg;
    memset(&got, 0x5a, sizeof got);
    bhi_options_read_from(&got, &sources);
    fprintf(stderr, "profile=%u guard=%u foreign=%u purge_delay=%u verbose=%u\n", got.profile, got.guard, got.foreign,
            got.purge_delay, got.verbose);
}

static unit_child_t child;

/* The entries give exactly these settings and so many warnings. */
static void expect(const char *settings, size_t warnings, const char *a, const char *b)
{
    memset(entries, 0, sizeof entries);
    entries[0] = "PATH=/bin";
    entries[1] = a;
    entries[2] = a != NULL ? b : NULL;
    unit_fork(parse, NULL, &child);
    char line[256];
    snprintf(line, sizeof line, "%s\n", settings);
    ck_assert_msg(WIFEXITED(child.status), "%s", child.err);
    ck_assert_msg(unit_lines(child.err, "") == warnings + 1, "%s, %s: wanted %zu warnings, got '%s'", a, b, warnings, child.err);
    ck_assert_uint_eq(unit_lines(child.err, "bulkhead: WARNING: option "), warnings);
    ck_assert_msg(unit_lines(child.err, line) == 1, "%s, %s: wanted '%s', got '%s'", a, b, settings, child.err);
}

#define DEFAULTS "profile=0 guard=0 foreign=0 purge_delay=10 verbose=0"

START_TEST(defaults)
{
    expect(DEFAULTS, 0, NULL, NULL);
    bhi_options_read_from(&got, &(bhi_option_sources_t){NULL, NULL, NULL});
    ck_assert(got.profile == 0 && got.guard == BHI_GUARD_AUTO && got.foreign == BHI_FOREIGN_ABORT && got.purge_delay == 10 &&
              got.verbose == 0);
}
END_TEST

START_TEST(every_key_in_both_forms)
{
    expect("profile=0 guard=1 foreign=0 purge_delay=10 verbose=0", 0, "BULKHEAD_GUARD=madvise", NULL);
    expect("profile=0 guard=2 foreign=0 purge_delay=10 verbose=0", 0, "BULKHEAD_OPTIONS=guard=mprotect", NULL);
    expect("profile=0 guard=0 foreign=1 purge_delay=10 verbose=0", 0, "BULKHEAD_FOREIGN=report", NULL);
    expect("profile=0 guard=0 foreign=2 purge_delay=10 verbose=0", 0, "BULKHEAD_OPTIONS=foreign=ignore", NULL);
    expect("profile=0 guard=0 foreign=0 purge_delay=0 verbose=0", 0, "BULKHEAD_PURGE_DELAY=0", NULL);
    expect("profile=0 guard=0 foreign=0 purge_delay=4294967295 verbose=0", 0, "BULKHEAD_OPTIONS=purge_delay=4294967295", NULL);
    expect("profile=0 guard=0 foreign=0 purge_delay=10 verbose=3", 0, "BULKHEAD_VERBOSE=003", NULL);
    expect(DEFAULTS, 0, "BULKHEAD_PROFILE=secure", "BULKHEAD_OPTIONS=profile=secure");
    expect("profile=0 guard=2 foreign=1 purge_delay=7 verbose=1", 0,
           "BULKHEAD_OPTIONS=guard=mprotect:foreign=report:purge_delay=7:verbose=1", NULL);
    expect("profile=0 guard=2 foreign=0 purge_delay=10 verbose=0", 0, "BULKHEAD_Guard=MProtect", NULL);
    expect("profile=0 guard=0 foreign=0 purge_delay=3 verbose=0", 0, "BULKHEAD_OPTIONS=::Purge_Delay=3::", NULL);
}
END_TEST

START_TEST(single_wins_over_list_in_any_order)
{
    expect("profile=0 guard=0 foreign=0 purge_delay=1 verbose=0", 0, "BULKHEAD_PURGE_DELAY=1", "BULKHEAD_OPTIONS=purge_delay=2");
    expect("profile=0 guard=0 foreign=0 purge_delay=1 verbose=0", 0, "BULKHEAD_OPTIONS=purge_delay=2", "BULKHEAD_PURGE_DELAY=1");
}
END_TEST

static void expect_text(const char *entry, const char *text)
{
    expect(DEFAULTS, 1, entry, NULL);
    ck_assert_msg(strstr(child.err, text) != NULL, "%s: no '%s' in '%s'", entry, text, child.err);
}

START_TEST(wrong_keys_and_values_cost_one_line_each)
{
    expect_text("BULKHEAD_NONSENSE=1", "option NONSENSE is unknown; known are profile, guard, foreign, purge_delay, quarantine_bytes, "
                                          "large_quarantine_bytes, trap_from, seal, log_file, verbose, show_stats");
    expect_text("BULKHEAD_OPTIONS=nonsense=1", "option nonsense is unknown; known are profile, guard");
    expect_text("BULKHEAD_GUARD=sometimes", "option GUARD does not accept 'sometimes'; accepted: auto|madvise|mprotect");
    expect_text("BULKHEAD_OPTIONS=foreign=", "option foreign does not accept ''; accepted: abort|report|ignore");
    expect_text("BULKHEAD_OPTIONS=foreign", "option foreign does not accept ''; accepted: abort|report|ignore");
    expect_text("BULKHEAD_PROFILE=hardened!", "option PROFILE does not accept 'hardened!'; accepted: secure");
    expect_text("BULKHEAD_PURGE_DELAY=-1", "'-1'; accepted: a number from 0 to 4294967295");
    expect_text("BULKHEAD_PURGE_DELAY=4294967296", "accepted: a number");
    expect_text("BULKHEAD_PURGE_DELAY=99999999999999999999999999", "accepted: a number");
    expect_text("BULKHEAD_PURGE_DELAY=0x10", "accepted: a number");
    expect_text("BULKHEAD_PURGE_DELAY=", "accepted: a number");
    expect_text("BULKHEAD_PURGE_DELAY= 1", "accepted: a number");
    expect_text("BULKHEAD_OPTIONS==", "option  is unknown");
    expect_text("BULKHEAD_=x", "option  is unknown");
    expect_text("BULKHEAD_GUARDS=auto", "option GUARDS is unknown");
    expect_text("BULKHEAD_GUAR=auto", "option GUAR is unknown");
    expect(DEFAULTS, 3, "BULKHEAD_OPTIONS=a=1:guard=x:purge_delay=y", NULL);
#ifndef BH_ALLOW_GUARD_NONE
    expect_text("BULKHEAD_GUARD=none", "accepted: auto|madvise|mprotect\n");
#endif
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

/* ------------------------------------------------------------ kinds and ranges */

/* Reads one entry in this process. A warning is a failure of the test. */
static void read_quietly(const char *entry)
{
    const char *env[] = {entry, NULL};
    bhi_options_read_from(&got, &(bhi_option_sources_t){NULL, NULL, (char *const *)(uintptr_t)env});
}

START_TEST(bytes_take_suffixes)
{
    static const struct {
        const char *text;
        uint64_t value;
    } good[] = {{"0", 0},           {"1", 1},           {"65536", 65536},        {"1k", 1024},       {"3K", 3072},
                {"64m", 64u << 20}, {"64M", 64u << 20}, {"65536k", 64u << 20}, {"00000000000000000001k", 1024}, {"67108864", 64u << 20}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char entry[64];
        snprintf(entry, sizeof entry, "BULKHEAD_QUARANTINE_BYTES=%s", good[i].text);
        read_quietly(entry);
        ck_assert_msg(got.quarantine_bytes == good[i].value, "%s: %llu", entry, (unsigned long long)got.quarantine_bytes);
    }
    read_quietly("BULKHEAD_LARGE_QUARANTINE_BYTES=64g");
    ck_assert_uint_eq(got.large_quarantine_bytes, (uint64_t)64 << 30);
    static const char *const bad[] = {"",    "k",    "1kk",  "1t",  "65m", "64m1", "67108865", "1g",  "18446744073709551616", "18446744073709551615g",
                                      "-1k", "0x1k", "1 k", "1k ", " 1",  "1.5m", "17592186044416m", "m1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char entry[64];
        snprintf(entry, sizeof entry, "BULKHEAD_QUARANTINE_BYTES=%s", bad[i]);
        expect_text(entry, "'; accepted: a number of bytes (or with k, m, g) from 0 to 64m\n");
    }
    expect_text("BULKHEAD_PURGE_DELAY=1k", "'1k'; accepted: a number from 0 to 4294967295\n");
    expect_text("BULKHEAD_LARGE_QUARANTINE_BYTES=65g", "(or with k, m, g) from 0 to 64g\n");
}
END_TEST

START_TEST(numbers_have_ranges)
{
    expect_text("BULKHEAD_SEAL=2", "option SEAL does not accept '2'; accepted: a number from 0 to 1\n");
    expect_text("BULKHEAD_SHOW_STATS=2", "a number from 0 to 1\n");
    expect_text("BULKHEAD_VERBOSE=4", "a number from 0 to 3\n");
    read_quietly("BULKHEAD_SEAL=1");
    ck_assert_uint_eq(got.seal, 1);
}
END_TEST

START_TEST(what_protects_is_only_made_stronger)
{
    read_quietly("BULKHEAD_TRAP_FROM=512k");
    ck_assert_uint_eq(got.trap_from, 512u << 10);
    read_quietly("BULKHEAD_TRAP_FROM=4095");
    ck_assert_uint_eq(got.trap_from, 4095);
    expect_text("BULKHEAD_TRAP_FROM=524289", "from 0 to 512k\n");
    expect_text("BULKHEAD_TRAP_FROM=1g", "from 0 to 512k\n");
}
END_TEST

START_TEST(strings)
{
    char entry[400] = "BULKHEAD_LOG_FILE=";
    read_quietly("BULKHEAD_OPTIONS=verbose=1");
    ck_assert_str_eq(got.log_file, "");
    read_quietly("BULKHEAD_LOG_FILE=/Var/log/a b:c=d.log");
    ck_assert_str_eq(got.log_file, "/Var/log/a b:c=d.log");
    size_t name = strlen(entry);
    memset(entry + name, 'x', 255);
    entry[name + 255] = '\0';
    read_quietly(entry);
    ck_assert_str_eq(got.log_file, entry + name);
    entry[name + 255] = 'x';
    expect_text(entry, "accepted: at most 255 bytes, no control characters\n");
    expect_text("BULKHEAD_LOG_FILE=a\nb", "accepted: at most 255 bytes, no control characters\n");
    bhi_format_t text;
    bhi_format_start(&text);
    bhi_options_text(&text, &got, bhi_options_find("log_file", 8));
    ck_assert_uint_eq(text.length, 255);
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

/* ------------------------------------------------------------------- profiles */

START_TEST(a_profile_sets_defaults_whatever_the_order)
{
    bhi_options_profiles = "secure|hardened|debug|fuzz";
    static const char *const alone[] = {"BULKHEAD_PROFILE=hardened", "BULKHEAD_OPTIONS=profile=hardened", "BULKHEAD_PROFILE=debug",
                                        "BULKHEAD_OPTIONS=profile=secure:profile=hardened"};
    for (size_t i = 0; i < 4; i++) {
        read_quietly(alone[i]);
        ck_assert_uint_ne(got.profile, BHI_PROFILE_SECURE);
        ck_assert(got.quarantine_bytes == 32768 && got.trap_from == 0 && got.large_quarantine_bytes == 256u << 20);
    }
    read_quietly("BULKHEAD_PROFILE=secure");
    ck_assert(got.quarantine_bytes == 0 && got.trap_from == 512u << 10);
    read_quietly("BULKHEAD_OPTIONS=quarantine_bytes=7:profile=hardened");
    ck_assert(got.profile == BHI_PROFILE_HARDENED && got.quarantine_bytes == 7 && got.trap_from == 0);
    read_quietly("BULKHEAD_OPTIONS=profile=hardened:quarantine_bytes=7");
    ck_assert(got.profile == BHI_PROFILE_HARDENED && got.quarantine_bytes == 7);
    /* A range is that of the profile in force, also before the entry that names it. */
    expect("profile=1 guard=0 foreign=0 purge_delay=10 verbose=0", 1, "BULKHEAD_TRAP_FROM=1", "BULKHEAD_PROFILE=hardened");
    ck_assert_ptr_nonnull(strstr(child.err, "accepted: a number of bytes (or with k, m, g) from 0 to 0\n"));
    expect(DEFAULTS, 0, "BULKHEAD_OPTIONS=profile=hardened:trap_from=4k", "BULKHEAD_PROFILE=secure");
    bhi_options_profiles = NULL;
}
END_TEST

START_TEST(only_profiles_that_are_built)
{
    expect_text("BULKHEAD_PROFILE=fuzz", "option PROFILE does not accept 'fuzz'; accepted: " BH_PROFILE_WORDS "\n");
    expect_text("BULKHEAD_PROFILE=nonsense", "accepted: " BH_PROFILE_WORDS "\n");
}
END_TEST

static char weaker[256];

static void note(const char *key, const char *effect)
{
    ck_assert_uint_gt(strlen(effect), 10);
    strcat(strcat(weaker, key), " ");
}

static void expect_weaker(const char *entry, const char *keys)
{
    read_quietly(entry);
    weaker[0] = '\0';
    bhi_options_weaker(&got, note);
    ck_assert_str_eq(weaker, keys);
}

START_TEST(what_weakens_is_told)
{
    bhi_options_profiles = "secure|hardened";
    expect_weaker("BULKHEAD_VERBOSE=1", "");
    expect_weaker("BULKHEAD_PROFILE=hardened", "");
    expect_weaker("BULKHEAD_OPTIONS=foreign=report:guard=mprotect", "foreign guard ");
    expect_weaker("BULKHEAD_OPTIONS=foreign=ignore:guard=madvise", "foreign ");
    expect_weaker("BULKHEAD_OPTIONS=quarantine_bytes=1k:trap_from=0:large_quarantine_bytes=1g", "");
    expect_weaker("BULKHEAD_OPTIONS=profile=hardened:quarantine_bytes=31k:large_quarantine_bytes=255m",
                  "quarantine_bytes large_quarantine_bytes ");
    bhi_options_profiles = NULL;
}
END_TEST

/* --------------------------------------------------------------------- sources */

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
    Suite *s = suite_create("options");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, defaults);
    tcase_add_test(c, every_key_in_both_forms);
    tcase_add_test(c, single_wins_over_list_in_any_order);
    tcase_add_test(c, wrong_keys_and_values_cost_one_line_each);
    tcase_add_test(c, what_is_not_ours_is_left_alone);
    tcase_add_test(c, a_value_cannot_forge_a_line);
    tcase_add_test(c, long_text_is_cut);
    tcase_add_test(c, bytes_take_suffixes);
    tcase_add_test(c, numbers_have_ranges);
    tcase_add_test(c, what_protects_is_only_made_stronger);
    tcase_add_test(c, strings);
    tcase_add_test(c, warnings_are_bounded);
    tcase_add_test(c, a_profile_sets_defaults_whatever_the_order);
    tcase_add_test(c, only_profiles_that_are_built);
    tcase_add_test(c, what_weakens_is_told);
    tcase_add_test(c, file_of_lines);
    tcase_add_test(c, later_sources_override);
    tcase_add_test(c, file_that_others_may_write);
    tcase_add_test(c, long_file);
    tcase_add_test(c, no_file_costs_one_open);
    tcase_add_test(c, noise);
    suite_add_tcase(s, c);
    return unit_main(s);
}
