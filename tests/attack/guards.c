/* The guard before and behind the blocks of every page, for every size class
 * and for large blocks: touching it is SIGSEGV at that very address. Also after
 * the span was used again, after a fork, and for guards made by mprotect.
 *
 *   guards            with guard=auto, then itself again with guard=mprotect
 *   guards here       with the settings of the environment */
#include "bulkhead.h"
#include "child.h"
#include "core/page.h"
#include "fault.h"
#include "meta/arena.h"
#include "meta/size_class.h"
#include "targets.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 2 /* of each class, so that not every page is the first in its segment */
#define MIB ((size_t)1 << 20)
#define OLD_PAGES 200

static const size_t large[] = {131073, 135168, 200000, MIB - 4096, MIB, MIB + 1, 4 * MIB - 65536, 4 * MIB, 5 * MIB, 64 * MIB};
#define LARGES (sizeof large / sizeof large[0])

typedef enum where { BEFORE, BEHIND, BEHIND_LAST, WHERES } where_t;
static const char *const where_names[WHERES] = {"before the first block", "behind the last block", "last byte of the guard"};

typedef struct tally {
    unsigned long probes, faults;
} tally_t;

static bhi_page_t *page_of(uintptr_t p)
{
    bhi_page_t *page = bhi_desc_at(bhi_arena_of(p)->descs, p - bhi_arena_of(p)->base);
    return bhi_desc_first(page);
}

static uintptr_t address(const bhi_page_t *page, where_t where)
{
    bool single = page->state == BHI_PAGE_LARGE;
    uintptr_t span_end = page->start + page->span_slots * BH_SLOT_SIZE;
    if (where == BEFORE)
        return page->start - 1;
    if (where == BEHIND_LAST)
        return span_end - 1;
    return single ? page->start + bhi_page_bytes(page) : span_end - BH_OS_PAGE_SIZE;
}

static void probe_page(uintptr_t block, const char *what, tally_t *n)
{
    const bhi_page_t *page = page_of(block);
    for (unsigned where = BEFORE; where < WHERES; where++) {
        for (unsigned write = 0; write < 2; write++) {
            uintptr_t at = address(page, (where_t)where);
            bool ok = attack_faults(at, write != 0);
            n->probes++;
            n->faults += ok;
            if (!ok)
                printf("  FAIL %s, %zu bytes: %s of %s (slot %zu) does not fault there\n", what, bhi_page_bytes(page),
                       write != 0 ? "write" : "read", where_names[where], (page->start >> BH_SLOT_SHIFT) % BH_SEGMENT_SLOTS);
        }
    }
}

/* ------------------------------------------------------------------- the table */

static bool print(const char *name, const tally_t *n)
{
    printf("%-4s %-44s %lu of %lu accesses faulted at their address\n", n->faults == n->probes ? "ok" : "FAIL", name, n->faults,
           n->probes);
    return n->faults == n->probes;
}

static tally_t each_class(const char *what, size_t filler)
{
    tally_t n = {0, 0};
    for (unsigned c = 0; c < BHI_CLASSES; c++) {
        const bhi_page_t *last = NULL;
        size_t size = bhi_class_size(c);
        unsigned pages = 0;
        for (uint32_t i = 0; pages < PAGES; i++) {
            uintptr_t p = target_take(size);
            if (page_of(p) != last) {
                last = page_of(p);
                pages++;
                probe_page(p, what, &n);
                if (filler != 0)
                    target_take(filler); /* spans of another size in between */
            }
        }
    }
    return n;
}

static tally_t each_large(const char *what)
{
    tally_t n = {0, 0};
    for (size_t i = 0; i < LARGES; i++) {
        for (unsigned k = 0; k < PAGES; k++) {
            uintptr_t p = target_take(large[i]);
            probe_page(p, what, &n);
            /* A span that is used again for less has its guard nearer. */
            target_give(p);
            probe_page(target_take(large[i] - (large[i] > 4 * MIB ? MIB : 0) - k * BH_OS_PAGE_SIZE * (large[i] > MIB)), what, &n);
        }
    }
    return n;
}

/* Segments full of old spans, given back in random order, some purged. */
static void churn(uint64_t *random)
{
    static uintptr_t old[OLD_PAGES];
    static const size_t of[] = {8192, 20000, 100000, 150000, 400000, 1500000};
    for (int round = 0; round < 6; round++) {
        for (size_t i = 0; i < OLD_PAGES; i++) {
            if (old[i] != 0)
                target_give(old[i]);
            old[i] = attack_below(random, 3) == 0 ? 0 : target_take(of[attack_below(random, 6)]);
        }
        if (round % 2 == 0)
            bh_collect(round % 4 == 0);
    }
    for (size_t i = 0; i < OLD_PAGES; i++) {
        if (old[i] != 0 && attack_below(random, 4) != 0)
            target_give(old[i]);
        old[i] = 0; /* the others live on */
    }
    bh_collect(false);
}

/* The same in a fork's child: guards are inherited. */
static bool in_child(bool (*body)(uint64_t *), uint64_t *random)
{
    int status;
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0)
        attack_broken("fork");
    if (pid == 0) {
        bool ok = body(random);
        fflush(stdout);
        _exit(ok ? 0 : 1);
    }
    if (waitpid(pid, &status, 0) != pid)
        attack_broken("waitpid");
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool reused(uint64_t *random)
{
    churn(random);
    tally_t n = each_class("after reuse", 70000);
    bool ok = print("every class, spans used before", &n);
    n = each_large("after reuse");
    return print("large blocks, spans used before", &n) && ok;
}

static bool all_rows(uint64_t *random)
{
    bh_free(bh_malloc(1)); /* start-up */
    printf("guards made by %s\n", bhi_process.guards_by_madvise ? "guard regions" : "mprotect");
    tally_t n = each_class("fresh", 0);
    bool ok = print("every class", &n);
    n = each_large("fresh");
    ok &= print("large blocks", &n);
    ok &= reused(random);
    puts("in a forked child:");
    if (!in_child(reused, random)) {
        puts("FAIL the forked child");
        ok = false;
    }
    size_t missed = atomic_load(&bhi_state->guard_missed);
    printf("%-4s guards that could not be placed: %zu\n", missed == 0 ? "ok" : "FAIL", missed);
    return ok && missed == 0;
}

int main(int argc, char **argv)
{
    uint64_t random = attack_begin("guards");
    bool ok = all_rows(&random);
    if (argc > 1)
        return ok ? 0 : 1;
    setenv("BULKHEAD_GUARD", "mprotect", 1);
    fflush(stdout);
    int status = 1;
    pid_t pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", argv[0], "here", (char *)NULL);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        attack_broken("second run");
    ok &= WIFEXITED(status) && WEXITSTATUS(status) == 0;
    return ok ? 0 : 1;
}
