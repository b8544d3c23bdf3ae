/* What the tests of options share: a child that reads them from given sources and
 * tells what came out. Included by one file of a program. */
#ifndef BH_UNIT_OPTIONS_CHILD_H
#define BH_UNIT_OPTIONS_CHILD_H

#include "rt/options.h"
#include "support.h"

#include <stdio.h>
#include <string.h>
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

static void expect_text(const char *entry, const char *text)
{
    expect(DEFAULTS, 1, entry, NULL);
    ck_assert_msg(strstr(child.err, text) != NULL, "%s: no '%s' in '%s'", entry, text, child.err);
}

#endif
