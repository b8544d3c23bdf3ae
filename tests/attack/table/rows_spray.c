/* Whether a layout can be foreseen: within a process, between two runs of a
 * program, between a parent and its child. */
#include "table.h"

#include <sys/wait.h>
#include <unistd.h>

#define SIZES "16 64 256 1024 8192"
#define SPRAY 10000

static void nothing(scene_t *s)
{
    settle(s);
}

/* ---------------------------------------------------------------- in a process */

static void strike_ascending(scene_t *s)
{
    size_t n = some_blocks(s->size, 2000), ascending = 0;
    marker();
    uintptr_t last = take(s->size);
    for (size_t i = 0; i < n; i++) {
        uintptr_t next = take(s->size);
        ascending += next > last;
        last = next;
    }
    s->effect = ascending > n - n / 8 || ascending < n / 8;
}

/* 10,000 blocks, every eighth freed: does the next allocation take the hole made
 * last, or the one made first? */
static void strike_holes(scene_t *s)
{
    size_t n = some_blocks(s->size, SPRAY), freed = 0, hits = 0, trials = 0;
    static uintptr_t holes[SPRAY];
    for (size_t i = 0; i < n; i++)
        s->block[i] = take(s->size);
    marker();
    for (size_t i = 0; i < n; i += 8)
        give(holes[freed++] = s->block[i]);
    for (; trials < freed && trials < 200; trials++) {
        uintptr_t p = take(s->size);
        hits += p == holes[freed - 1 - trials] || p == holes[trials];
    }
    tally(hits, trials);
}

/* ---------------------------------------------------------------- between runs */

/* In a probe: where a pattern of allocations and frees lands, from its first. */
static void spray(scene_t *s)
{
    uintptr_t first = take(s->size);
    for (unsigned i = 0; i < 600; i++) {
        uintptr_t p = take(s->size);
        if (i % 3 == 0)
            give(p);
        print_number(p - first);
    }
}

static void base(scene_t *s)
{
    print_number(take(s->size) >> 12);
}

static void compare(const char *row, scene_t *s)
{
    static uint64_t a[1000], b[1000];
    uint64_t seed = draw(s);
    size_t n = probe(row, s->size, seed, a, 1000);
    size_t m = probe(row, s->size, seed, b, 1000);
    if (n == 0)
        finish(END_BROKEN, false);
    marker();
    s->effect = n == m;
    for (size_t i = 0; i < n; i++)
        s->effect &= a[i] == b[i];
    finish(s->effect ? END_PRESENT : END_ABSENT, false);
}

static void strike_repeat(scene_t *s)
{
    compare("layout-repeats", s);
}

static void strike_base(scene_t *s)
{
    compare("base-repeats", s);
}

/* ------------------------------------------------------------ parent and child */

#define FORKED 3000

static size_t take_and_list(scene_t *s, uintptr_t *list)
{
    size_t n = some_blocks(s->size, FORKED);
    for (size_t i = 0; i < n; i++)
        list[i] = take(s->size);
    return n * sizeof *list;
}

static void strike_forked(scene_t *s)
{
    static uintptr_t here[FORKED], there[FORKED];
    int ends[2];
    if (pipe(ends) != 0)
        _exit(END_BROKEN);
    marker();
    pid_t pid = fork();
    if (pid == 0) {
        size_t n = take_and_list(s, there), sent = 0;
        while (sent < n) {
            ssize_t part = write(ends[1], (char *)there + sent, n - sent);
            if (part <= 0)
                _exit(1);
            sent += (size_t)part;
        }
        _exit(0);
    }
    close(ends[1]);
    size_t n = take_and_list(s, here), got = 0;
    ssize_t part;
    while (got < n && (part = read(ends[0], (char *)there + got, n - got)) > 0)
        got += (size_t)part;
    waitpid(pid, NULL, 0);
    if (pid < 0 || got != n)
        _exit(END_BROKEN);
    s->effect = true;
    for (size_t i = 0; i < n / sizeof *here; i++)
        s->effect &= here[i] == there[i];
}

const row_t rows_spray[] = {
    {"order-ascends", "addresses of blocks taken one after the other rise, or fall", SIZES, "local", NOW("DEFUSED"), NOW("DEFUSED"), 0,
     nothing, strike_ascending, NULL, false},
    {"holes-in-order", "how often, of 10,000 blocks with every eighth freed, the hole made first or last is filled next",
     "16 64 256 1024", "local", NOW("RARE:1/8"), NOW("RARE:1/8"), 0, nothing, strike_holes, NULL, false},
    {"layout-repeats", "the same calls land at the same distances in two processes", SIZES " 20480 204800", "local", NOW("DEFUSED"),
     NOW("DEFUSED"), 0, spray, strike_repeat, NULL, false},
    {"base-repeats", "the first block lies at the same address in two processes", "64 204800", "local", NOW("DEFUSED"), NOW("DEFUSED"), 0,
     base, strike_base, NULL, false},
    {"fork-repeats", "3000 blocks taken after a fork have the same addresses in both", "16 64 256 1024", "local", NOW("DEFUSED"),
     NOW("DEFUSED"), 0, nothing, strike_forked, NULL, false},
    {NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, false},
};
