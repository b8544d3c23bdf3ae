/* No residue: a process that never writes into its blocks must never read
 * anything but zero from them, whatever the blocks' memory served for before.
 * A link, a key or a pointer that the allocator left behind would show.
 *
 *   residue           with the default settings, and again with each of the others
 *   residue here      with the settings of the environment */
#include "bulkhead.h"
#include "child.h"
#include "os/os.h"
#include "targets.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCKS 4000
#define ROUNDS 60
#define READ_MOST ((size_t)1 << 17)

static uintptr_t blocks[BLOCKS];
static unsigned long dirty, words;

static void check(uintptr_t p)
{
    size_t usable = bh_usable_size((void *)p); /* NOLINT: blocks are numbers here */
    const uint64_t *word = (const uint64_t *)p; /* NOLINT */
    for (size_t i = 0; i < usable / 8 && i < READ_MOST / 8; i++) {
        words++;
        if (word[i] != 0 && dirty++ < 5)
            printf("  block of %zu bytes holds 0x%016" PRIx64 " at offset %zu\n", usable, word[i], i * 8);
    }
}

static size_t some_size(uint64_t *random, unsigned round)
{
    /* Rounds of one size each, so that pages empty and change their class, and
     * mixed rounds. */
    static const size_t of[] = {8, 16, 24, 100, 500, 1000, 2000, 5000, 9000, 30000, 100000, 140000};
    uint32_t most = round % 3 == 0 ? 12 : 1;
    return of[(round / 3 * 5 + attack_below(random, most)) % 12];
}

static void *free_odd(void *unused)
{
    for (size_t i = 1; i < BLOCKS; i += 2) {
        if (blocks[i] != 0)
            target_give(blocks[i]);
        blocks[i] = 0;
    }
    return unused;
}

static void round_of(uint64_t *random, unsigned round)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        size_t size = some_size(random, round);
        if (size > 20000 && i % 16 != 0)
            continue;
        if (blocks[i] == 0) {
            blocks[i] = target_take(size);
            check(blocks[i]);
        }
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        if (blocks[i] != 0 && (round % 2 == 0 || attack_below(random, 4) != 0)) {
            target_give(blocks[i]);
            blocks[i] = 0;
        }
    }
    if (round % 4 == 1) {
        pthread_t t;
        if (pthread_create(&t, NULL, free_odd, NULL) != 0)
            attack_broken("pthread_create");
        pthread_join(t, NULL);
    }
    if (round % 5 == 0)
        bh_collect(round % 10 == 0);
}

static bool run(const char *what, uint64_t *random)
{
    dirty = words = 0;
    for (unsigned round = 0; round < ROUNDS; round++)
        round_of(random, round);
    printf("%-4s %s: %lu of %lu words of new blocks were not zero\n", dirty == 0 ? "ok" : "FAIL", what, dirty, words);
    return dirty == 0;
}

/* A sandbox that came after start-up: memory cannot be given back. */
static int no_advice(bhi_os_call_t call)
{
    return call == BHI_OS_MADVISE || call == BHI_OS_PROCESS_MADVISE ? EPERM : 0;
}

static bool all_here(uint64_t *random)
{
    const char *delay = getenv("BULKHEAD_PURGE_DELAY");
    char what[96];
    snprintf(what, sizeof what, "purge_delay=%s", delay != NULL ? delay : "default");
    bool ok = run(what, random);
    snprintf(what, sizeof what, "purge_delay=%s, the kernel takes no memory back", delay != NULL ? delay : "default");
    bhi_os_fail_hook = no_advice;
    ok &= run(what, random);
    bhi_os_fail_hook = NULL;
    return ok;
}

static bool with_delay(const char *program, const char *delay)
{
    int status;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        setenv("BULKHEAD_PURGE_DELAY", delay, 1);
        execl("/proc/self/exe", program, "here", (char *)NULL);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        attack_broken("another run");
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int main(int argc, char **argv)
{
    uint64_t random = attack_begin("residue");
    bool ok = all_here(&random);
    if (argc == 1) {
        ok &= with_delay(argv[0], "0");
        ok &= with_delay(argv[0], "1000000");
    }
    return ok ? 0 : 1;
}
