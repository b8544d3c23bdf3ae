/* What the unit tests share: children that may die, what they print, probing
 * of memory without a signal, and seeded random numbers. */
#ifndef BH_UNIT_SUPPORT_H
#define BH_UNIT_SUPPORT_H

#include "base/compiler.h"

#include <check.h>
#include <sys/types.h>

/* Check writes its place to a file for each assertion that holds. These suites
 * make millions; a test that dies by a signal is told by its name. */
#define _mark_point(file, line) ((void)0)

/* What became of a child: wait status and what it wrote to standard error. */
typedef struct unit_child {
    int status;
    size_t length;
    char err[16384];
} unit_child_t;

typedef void unit_body_t(void *arg);

/* Runs body(arg) in a forked child; the child ends with status 0 after it. */
void unit_fork(unit_body_t *body, void *arg, unit_child_t *out);

/* Runs this program anew with the argument `mode` and these environment
 * entries ("NAME=value", NULL at the end) on top of the present ones. */
void unit_exec(const char *mode, const char *const *env, unit_child_t *out);

/* Asserts that the body ends with SIGABRT after exactly one report on standard
 * error: a line that starts with "bulkhead: ERROR: <id>: ", and its details. */
void unit_assert_violation(unit_body_t *body, void *arg, const char *id);

/* Asserts that the body ends by itself and prints nothing. */
void unit_assert_quiet(unit_body_t *body, void *arg);

/* Lines of a text, and those of them that start with `prefix`. */
size_t unit_lines(const char *text, const char *prefix);

/* Runs a thread to its end. */
void *unit_thread(void *(*body)(void *), void *arg);

/* Can the OS page that holds `addr` be read? Asks the kernel; no signal, no
 * change. */
bool unit_readable(uintptr_t addr);

/* Are all n bytes from p this one? (An assertion of Check for each byte is
 * slow.) */
static inline bool unit_is(const void *p, size_t n, int byte)
{
    const unsigned char *at = p;
    for (size_t i = 0; i < n; i++) {
        if (at[i] != (unsigned char)byte)
            return false;
    }
    return true;
}

/* Numbers of this process's mappings that lie in [from, from + size), with any
 * access, and without. */
size_t unit_mappings(uintptr_t from, size_t size);

/* SplitMix64. unit_seed draws a seed and prints it; BULKHEAD_TEST_SEED sets it. */
uint64_t unit_random(uint64_t *state);
uint32_t unit_below(uint64_t *state, uint32_t bound);
uint64_t unit_seed(const char *test);

/* Runs a suite and returns the exit status for main. */
int unit_main(Suite *suite);

/* Whether this run is one in profile hardened: where a test looks at free lists,
 * retired pages, rounded sizes or immediate reuse, it means the others. */
bool unit_is_hardened(void);

/* Seconds; no test comes near it on any machine. */
#define UNIT_TIMEOUT 100.0

#endif
