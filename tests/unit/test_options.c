/* rt/options.c: every key in both forms, what is wrong costs one line, and
 * nothing that an environment can hold breaks the parser. */
#include "rt/options.h"
#include "support.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static bhi_options_t got;
static const char *entries[8];

/* Child: parses `entries` and tells what came out on its last line. */
static void parse(void *arg)
{
    (void)arg;
    memset(&got, 0x5a, sizeof got);
    bhi_options_read(&got, (char *const *)(uintptr_t)entries);
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
    bhi_options_read(&got, NULL);
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

START_TEST(options_of_reports)
{
    char *env[] = {(char[]){"BULKHEAD_REPORT=json"}, (char[]){"BULKHEAD_OPTIONS=log_fd=7:syslog=1"}, NULL};
    bhi_options_read(&got, NULL);
    ck_assert(got.report == BHI_REPORT_TEXT && got.log_fd == BHI_LOG_FD_NONE && got.syslog == 0);
    bhi_options_read(&got, env);
    ck_assert(got.report == BHI_REPORT_JSON && got.log_fd == 7 && got.syslog == 1);
    expect_text("BULKHEAD_REPORT=xml", "option REPORT does not accept 'xml'; accepted: text|json");
}
END_TEST

START_TEST(wrong_keys_and_values_cost_one_line_each)
{
    expect_text("BULKHEAD_NONSENSE=1", "option NONSENSE is unknown; known are profile, guard, foreign, purge_delay, verbose, show_stats");
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
        bhi_options_read(&got, env);
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
    tcase_add_test(c, options_of_reports);
    tcase_add_test(c, single_wins_over_list_in_any_order);
    tcase_add_test(c, wrong_keys_and_values_cost_one_line_each);
    tcase_add_test(c, what_is_not_ours_is_left_alone);
    tcase_add_test(c, a_value_cannot_forge_a_line);
    tcase_add_test(c, long_text_is_cut);
    tcase_add_test(c, noise);
    suite_add_tcase(s, c);
    return unit_main(s);
}
