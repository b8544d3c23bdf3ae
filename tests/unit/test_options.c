/* rt/options.c: what each kind of option accepts, in every form, defaults by
 * profile, and what a wrong value is told. */
#include "options_child.h"
#include "rt/format.h"

#include <stdio.h>
#include <string.h>

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
    expect_text("BULKHEAD_NONSENSE=1", "option NONSENSE is unknown; known are profile, guard, foreign, purge_delay, quarantine_bytes, "
                                          "large_quarantine_bytes, large_keep_bytes, trap_from, seal, log_file, report, log_fd, syslog, verbose, show_stats");
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

/* ------------------------------------------------------------ kinds and ranges */

/* Reads one entry in this process. */
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

/* ------------------------------------------------------------------- profiles */

START_TEST(a_profile_sets_defaults_whatever_the_order)
{
    bhi_options_profiles = "secure|hardened|fuzz|debug";
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

START_TEST(a_profile_may_have_defaults_of_its_own)
{
    read_quietly("BULKHEAD_PROFILE=debug");
    ck_assert(got.guarded_sample_rate == 4000 && got.guarded_first == 8 && got.stacks_of == BHI_STACKS_OF_ALL && got.fill == 1 &&
              got.mismatch == BHI_MISMATCH_ABORT && got.leaks == 1 && got.leak_signal == 0);
    read_quietly("BULKHEAD_OPTIONS=guarded_sample_rate=1:profile=debug:leaks=0");
    ck_assert(got.guarded_sample_rate == 1 && got.leaks == 0 && got.fill == 1);
    read_quietly("BULKHEAD_PROFILE=hardened");
    ck_assert(got.guarded_sample_rate == 0 && got.stacks_of == BHI_STACKS_OF_GUARDED && got.fill == 0 &&
              got.mismatch == BHI_MISMATCH_IGNORE && got.leaks == 0);
}
END_TEST

START_TEST(only_profiles_that_are_built)
{
    expect_text("BULKHEAD_PROFILE=nonsense", "accepted: secure|hardened|fuzz|debug\n");
}
END_TEST

START_TEST(fuzz_has_defaults_of_its_own)
{
    read_quietly("BULKHEAD_PROFILE=fuzz");
    ck_assert(got.profile == BHI_PROFILE_FUZZ && got.seed == 1 && got.realloc_moves == 1 && got.alloc_cap == 1u << 30);
    ck_assert(got.purge_delay == 0 && got.guarded_sample_rate == 1 && got.stacks == BHI_STACKS_NONE && got.quarantine_bytes == 32768);
    read_quietly("BULKHEAD_OPTIONS=profile=fuzz:seed=4294967295:guarded_sample_rate=50:realloc_moves=0:alloc_cap=128k:alloc_cap_abort=1");
    ck_assert(got.seed == UINT32_MAX && got.guarded_sample_rate == 50 && got.realloc_moves == 0 && got.alloc_cap == 128u << 10 &&
              got.alloc_cap_abort == 1);
    read_quietly("BULKHEAD_PROFILE=hardened");
    ck_assert(got.seed == 0 && got.realloc_moves == 0 && got.alloc_cap == BH_ALLOC_CAP_NONE && got.guarded_sample_rate == 0);
}
END_TEST

START_TEST(no_seed_in_production)
{
    expect_text("BULKHEAD_SEED=1", "option SEED does not accept '1'; accepted: a number from 0 to 0\n");
    expect("profile=1 guard=0 foreign=0 purge_delay=10 verbose=0", 1, "BULKHEAD_SEED=1", "BULKHEAD_PROFILE=hardened");
    expect("profile=2 guard=0 foreign=0 purge_delay=0 verbose=0", 0, "BULKHEAD_SEED=7", "BULKHEAD_PROFILE=fuzz");
    expect("profile=2 guard=0 foreign=0 purge_delay=0 verbose=0", 1, "BULKHEAD_SEED=4294967296", "BULKHEAD_PROFILE=fuzz");
    expect_text("BULKHEAD_ALLOC_CAP=131071", "(or with k, m, g) from 128k to 67108864g\n");
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
    bhi_options_profiles = "secure|hardened|fuzz";
    expect_weaker("BULKHEAD_PROFILE=fuzz", "seed ");
    expect_weaker("BULKHEAD_OPTIONS=profile=fuzz:seed=0", "");
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

int main(void)
{
    Suite *s = suite_create("options");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, defaults);
    tcase_add_test(c, every_key_in_both_forms);
    tcase_add_test(c, options_of_reports);
    tcase_add_test(c, wrong_keys_and_values_cost_one_line_each);
    tcase_add_test(c, bytes_take_suffixes);
    tcase_add_test(c, numbers_have_ranges);
    tcase_add_test(c, what_protects_is_only_made_stronger);
    tcase_add_test(c, strings);
    tcase_add_test(c, a_profile_sets_defaults_whatever_the_order);
    tcase_add_test(c, a_profile_may_have_defaults_of_its_own);
    tcase_add_test(c, only_profiles_that_are_built);
    tcase_add_test(c, fuzz_has_defaults_of_its_own);
    tcase_add_test(c, no_seed_in_production);
    tcase_add_test(c, what_weakens_is_told);
    suite_add_tcase(s, c);
    return unit_main(s);
}
