/* Large blocks: what is freed faults at each touch, the byte before each block
 * faults, and freed addresses do not come back soon, nor after a known time.
 *
 *   large            with guard=auto, then itself again with guard=mprotect
 *   large here       with the settings of the environment */
#include "bulkhead.h"
#include "child.h"
#include "fault.h"
#include "meta/arena.h"
#include "targets.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define RING 256u      /* spans that wait at most; see hardening-docs/large-blocks.md */
#define RING_SIZE (600 * 1024)
#define SEEDS 12

typedef struct tally {
    unsigned long tried, good;
} tally_t;

static bool print(const char *name, const tally_t *n)
{
    bool ok = n->tried > 0 && n->good == n->tried;
    printf("%-4s %-52s %lu of %lu\n", ok ? "ok" : "FAIL", name, n->good, n->tried);
    return ok;
}

static void *free_there(void *p)
{
    bh_free(p);
    return NULL;
}

static void free_remotely(uintptr_t p)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, free_there, (void *)p) != 0) /* NOLINT */
        attack_broken("thread");
    pthread_join(thread, NULL);
    bh_collect(false); /* the owner takes it in */
}

/* ------------------------------------------------------------ use after free */

static void probe_freed(uintptr_t p, size_t size, bool write, tally_t *n)
{
    const size_t at[] = {0, size / 2, size - 1};
    for (size_t i = 0; i < 3; i++) {
        bool ok = attack_faults(p + at[i], write);
        n->tried++;
        n->good += ok;
        if (!ok)
            printf("  FAIL %zu bytes: %s of byte %zu after free does not fault there\n", size, write ? "write" : "read", at[i]);
    }
}

static bool use_after_free(void)
{
    static const size_t sizes[] = {512 * 1024, MIB, 4 * MIB - 65536, 4 * MIB, 16 * MIB, 1024 * MIB};
    static const char *const names[2][2] = {{"read after free", "write after free"},
                                            {"read after another thread's free", "write after another thread's free"}};
    bool ok = true;
    for (int remote = 0; remote < 2; remote++) {
        for (int write = 0; write < 2; write++) {
            tally_t n = {0, 0};
            for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
                uintptr_t p = target_take(sizes[i]);
                volatile unsigned char *bytes = (volatile unsigned char *)p; /* NOLINT */
                bytes[0] = bytes[sizes[i] / 2] = bytes[sizes[i] - 1] = 1;
                if (remote != 0)
                    free_remotely(p);
                else
                    target_give(p);
                probe_freed(p, sizes[i], write != 0, &n);
            }
            ok &= print(names[remote][write], &n);
        }
    }
    return ok;
}

/* ------------------------------------------------------------------ underflow */

static void probe_before(uintptr_t p, const char *what, tally_t *n)
{
    for (int write = 0; write < 2; write++) {
        bool ok = attack_faults(p - 1, write != 0);
        n->tried++;
        n->good += ok;
        if (!ok)
            printf("  FAIL %s: %s of the byte before does not fault there\n", what, write != 0 ? "write" : "read");
    }
}

/* A block in the first slot of a segment that is not the first of the arena. */
static uintptr_t in_first_slot(size_t size)
{
    for (int i = 0; i < 3000; i++) {
        uintptr_t p = target_take(size);
        if (p % BH_SEGMENT_SIZE == 0 && p != bhi_process.block_base)
            return p;
    }
    attack_broken("no block in a first slot");
}

static bool underflow(void)
{
    static const size_t sizes[] = {131073, 200000, 512 * 1024, MIB, 3 * MIB, 5 * MIB, 64 * MIB};
    tally_t n = {0, 0};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int k = 0; k < 6; k++)
            probe_before(target_take(sizes[i]), "a block", &n);
    }
    for (int i = 0; i < 40; i++) { /* the slot before is free, in all stages of that */
        uintptr_t a = target_take(140000), b = target_take(150000);
        target_give(a);
        if (i % 4 == 0)
            bh_collect(true);
        probe_before(b, "a block behind free slots", &n);
    }
    for (int i = 0; i < 4; i++)
        probe_before(in_first_slot(140000), "a block in a first slot", &n);
    probe_before((uintptr_t)bh_aligned_alloc(16 * MIB, 5 * MIB), "a block aligned to 16 MiB", &n);
    probe_before((uintptr_t)bh_aligned_alloc(MIB, 700000), "a block aligned to 1 MiB", &n);
    probe_before(bhi_process.block_base, "the first slot of all", &n);
    return print("underflow by one byte", &n);
}

/* ---------------------------------------------------------------------- reuse */

/* Frees that pass from one of RING_SIZE bytes until its address comes back. */
static unsigned reuse_distance(void)
{
    for (unsigned i = 0; i < RING; i++)
        target_give(target_take(RING_SIZE));
    uintptr_t p = target_take(RING_SIZE);
    target_give(p);
    for (unsigned i = 1; i < 20 * RING; i++) {
        uintptr_t q = target_take(RING_SIZE);
        if (q - p < RING_SIZE || p - q < RING_SIZE)
            return i;
        target_give(q);
    }
    return 20 * RING;
}

static void measure(void *arg)
{
    (void)arg;
    attack_record("distance", reuse_distance());
}

static bool reuse(void)
{
    unsigned long seen[SEEDS];
    tally_t late = {0, 0}, varied = {1, 0};
    for (int i = 0; i < SEEDS; i++) {
        attack_end_t end; /* a child has random numbers of its own */
        attack_run(measure, NULL, &end);
        if (end.count != 1 || end.status != 0)
            attack_broken("measuring");
        seen[i] = end.records[0].value;
        late.tried++;
        late.good += seen[i] > RING / 2;
        if (seen[i] <= RING / 2)
            printf("  FAIL an address came back after %lu frees\n", seen[i]);
    }
    unsigned distinct = 0;
    for (int i = 0; i < SEEDS; i++) {
        int k = 0;
        while (seen[k] != seen[i])
            k++;
        distinct += k == i;
    }
    varied.good = distinct >= SEEDS / 2;
    bool ok = print("addresses wait for half the ring", &late);
    printf("distances:");
    for (int i = 0; i < SEEDS; i++)
        printf(" %lu", seen[i]);
    puts("");
    return print("addresses come back after unknown times", &varied) && ok;
}

/* A double free while the address waits. */
static void free_twice(void *arg)
{
    uintptr_t p = target_take(*(const size_t *)arg);
    target_give(p);
    attack_record("double-free", p);
    target_give(p);
}

static bool double_free(void)
{
    static const size_t sizes[] = {512 * 1024, 3 * MIB, 16 * MIB};
    tally_t n = {0, 0};
    for (size_t i = 0; i < 3; i++) {
        attack_end_t end;
        attack_run(free_twice, (void *)(uintptr_t)&sizes[i], &end);
        const char *wrong = attack_verdict(&end);
        n.tried++;
        n.good += wrong == NULL;
        if (wrong != NULL)
            printf("  FAIL %zu bytes: %s\n", sizes[i], wrong);
    }
    return print("double free of a large block", &n);
}

static bool all_rows(void)
{
    bh_free(bh_malloc(1)); /* start-up */
    printf("guards made by %s\n", bhi_process.guards_by_madvise ? "guard regions" : "mprotect");
    bool ok = use_after_free();
    ok &= underflow();
    ok &= double_free();
    return reuse() && ok;
}

int main(int argc, char **argv)
{
    attack_begin("large");
    bool ok = all_rows();
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
