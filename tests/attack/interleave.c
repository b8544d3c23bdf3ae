/* The same block freed by two threads, in every order of their instructions
 * that has one switch: thread B is stopped after its k-th instruction inside
 * bh_free, thread A frees the block in full, B goes on; for every k.
 *
 * The processor's trap flag stops B after each instruction, so that no race has
 * to be won: what a race finds once in a million runs, this finds every time.
 *
 *   interleave [STEPS]   steps looked at per row; default 300, after which only
 *                        the help for an ended owner and a release remain */
#include "bulkhead.h"
#include "child.h"
#include "meta/arena.h"
#include "race.h"
#include "targets.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#if defined(__x86_64__) && !BH_SANITIZED
#define CAN_STEP 1
#else
#define CAN_STEP 0
#endif

#define TRAP_FLAG 0x100
#define NEIGHBOURS 4
#define STOPPED_MS 100 /* B goes on after this, counted from A's start: A may wait for a lock that B holds */
#define WARM_SIZE ((size_t)48)
#define WARM_BLOCKS 80
#define REUSE_SIZE ((size_t)2000)
#define REUSE_BLOCKS 240

typedef enum who { OWNER, OTHER } who_t;
typedef enum between { NOTHING, COLLECT, REUSE } between_t;

typedef struct row {
    const char *name;
    who_t stepped, whole;
    bool owner_dead;
    between_t between; /* what the owner does after A's free, before B goes on */
} row_t;

static const row_t rows[] = {
    {"other stops, owner frees", OTHER, OWNER, false, NOTHING},
    {"owner stops, other frees", OWNER, OTHER, false, NOTHING},
    {"other stops, other frees", OTHER, OTHER, false, NOTHING},
    {"the same, owner collects", OTHER, OTHER, false, COLLECT},
    {"the same, owner dead", OTHER, OTHER, true, NOTHING},
    /* B may still hold pointers to the map of a page that has ended. */
    {"other stops, owner frees, reuses", OTHER, OWNER, false, REUSE},
};
#define ROWS (sizeof rows / sizeof rows[0])

static const size_t sizes[] = {8, 64, 1000, 8192, 32768, 131072, 200000, (size_t)5 << 20};
#define SIZES (sizeof sizes / sizeof sizes[0])

typedef struct trial {
    const row_t *row;
    size_t size;
    unsigned long stop_at;
} trial_t;

static struct {
    const trial_t *trial;
    uintptr_t block, start, warm[WARM_BLOCKS]; /* start: of the block's page */
    uintptr_t live[REUSE_BLOCKS];
    atomic_bool stopped, seen, go_on, done;
    unsigned long steps;
} scene;

/* ---------------------------------------------------------------- stepping */

#if CAN_STEP
static long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void on_trap(int signal_number, siginfo_t *info, void *context)
{
    (void)signal_number;
    (void)info;
    ucontext_t *u = context;
    if (++scene.steps < scene.trial->stop_at)
        return;
    u->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
    atomic_store(&scene.stopped, true);
    while (!atomic_load(&scene.seen))
        sched_yield();
    for (long end = now_ms() + STOPPED_MS; !atomic_load(&scene.go_on) && now_ms() < end;)
        sched_yield();
}

/* Below the red zone, which the compiler may use across the statement. */
static void stepped_free(uintptr_t p)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_trap;
    action.sa_flags = SA_SIGINFO;
    if (sigaction(SIGTRAP, &action, NULL) != 0)
        attack_broken("sigaction");
    __asm__ volatile("sub $128, %%rsp; pushfq; orq %0, (%%rsp); popfq; add $128, %%rsp" ::"i"(TRAP_FLAG) : "memory", "cc");
    bh_free((void *)p); /* NOLINT: blocks are numbers here */
    __asm__ volatile("sub $128, %%rsp; pushfq; andq %0, (%%rsp); popfq; add $128, %%rsp" ::"i"(~TRAP_FLAG) : "memory", "cc");
    atomic_store(&scene.done, true);
}
#else
static void stepped_free(uintptr_t p)
{
    target_give(p);
}
#endif

/* ------------------------------------------------------------------- a trial */

/* Other remote frees first, after which the thread has a hazard word of its own:
 * the steps then are those of the free itself. */
static void *step(void *unused)
{
    if (scene.trial->row->stepped == OTHER)
        for (int i = 0; i < WARM_BLOCKS; i++)
            target_give(scene.warm[i]);
    stepped_free(scene.block);
    return unused;
}

static void *give(void *unused)
{
    target_give(scene.block);
    return unused;
}

static void *prepare(void *unused)
{
    bool alone = scene.trial->row->between == REUSE; /* so that the page ends with the block */
    for (int i = 0; i < WARM_BLOCKS; i++)
        scene.warm[i] = target_take(WARM_SIZE);
    for (int i = 0; i < NEIGHBOURS && !alone; i++)
        target_take(scene.trial->size);
    scene.block = target_take(scene.trial->size);
    const bhi_arena_t *arena = bhi_arena_of(scene.block);
    scene.start = bhi_desc_first(bhi_desc_at(arena->descs, scene.block - arena->base))->start;
    for (int i = 0; i < NEIGHBOURS && !alone; i++)
        target_take(scene.trial->size);
    return unused;
}

static pthread_t start(void *(*body)(void *))
{
    pthread_t t;
    if (pthread_create(&t, NULL, body, NULL) != 0)
        attack_broken("pthread_create");
    return t;
}

/* New pages, whose maps may lie where the old page's map lay. */
static void reuse(void)
{
    bh_collect(true);
    for (size_t i = 0; i < REUSE_BLOCKS; i++)
        scene.live[i] = target_take(REUSE_SIZE);
    bhi_arena_t *arena = bhi_arena_of(scene.block);
    /* With the first slot of the page in use again, B's free is that of a live
     * block, or finds another page: it is not judged. */
    size_t slots[] = {(scene.block - arena->base) >> BH_SLOT_SHIFT, (scene.start - arena->base) >> BH_SLOT_SHIFT};
    for (int i = 0; i < 2; i++) {
        if ((arena->headers[slots[i] >> BH_SEGMENT_SLOTS_SHIFT].free >> (slots[i] % BH_SEGMENT_SLOTS) & 1) == 0)
            attack_record("address in use again", scene.block);
    }
}

static void *free_odd(void *unused)
{
    for (size_t i = 1; i < REUSE_BLOCKS; i += 2)
        target_give(scene.live[i]);
    return unused;
}

/* Every second block of `live` is still the program's: malloc must not return it. */
static void check_reused(void)
{
    pthread_join(start(free_odd), NULL);
    bh_collect(false);
    for (size_t i = 0; i < REUSE_BLOCKS; i++) {
        uintptr_t p = target_take(REUSE_SIZE);
        for (size_t k = 0; k < REUSE_BLOCKS; k += 2) {
            if (scene.live[k] == p)
                attack_record("handed out twice", p);
        }
    }
}

static void wait_for_step(void)
{
    while (!atomic_load(&scene.stopped) && !atomic_load(&scene.done))
        sched_yield();
}

/* With the owner stepped it is the new thread that prepares and is stepped; the
 * main thread is then the other one. */
static void *prepare_and_step(void *unused)
{
    prepare(NULL);
    attack_record("double-free", scene.block);
    return step(unused);
}

static void trial_body(void *arg)
{
    const trial_t *trial = arg;
    const row_t *row = trial->row;
    memset(&scene, 0, sizeof scene);
    scene.trial = trial;
    pthread_t b;
    if (row->stepped == OWNER) {
        b = start(prepare_and_step);
    } else {
        if (row->owner_dead)
            pthread_join(start(prepare), NULL);
        else
            prepare(NULL);
        attack_record("double-free", scene.block);
        b = start(step);
    }
    wait_for_step();
    if (!atomic_load(&scene.stopped))
        attack_record("past the end", scene.steps);
    atomic_store(&scene.seen, true);
    if (row->stepped == OWNER || row->whole == OWNER)
        target_give(scene.block); /* by the main thread, whoever that is here */
    else
        pthread_join(start(give), NULL);
    if (row->between == COLLECT)
        bh_collect(false);
    if (row->between == REUSE)
        reuse();
    atomic_store(&scene.go_on, true);
    pthread_join(b, NULL);
    attack_record("late", scene.block);
    if (row->between == REUSE)
        check_reused();
    else
        race_settle(trial->size, scene.block);
}

/* ----------------------------------------------------------------- counting */

/* What a double free came to, from what is promised to what must never be. */
typedef enum outcome { AT_ONCE, LATE, LATE_OTHER, UNSEEN, TWICE, OUTCOMES } outcome_t;

static outcome_t judge(const attack_end_t *end)
{
    uintptr_t address;
    if (attack_has(end, "handed out twice"))
        return TWICE;
    if (attack_verdict(end) == NULL)
        return attack_has(end, "late") ? LATE : AT_ONCE;
    return attack_id(end, &address)[0] != '\0' ? LATE_OTHER : UNSEEN;
}

int main(int argc, char **argv)
{
    unsigned long most = argc > 1 ? strtoul(argv[1], NULL, 0) : 300;
    unsigned long total = 0, good = 0, twice = 0;
    if (!CAN_STEP) {
        puts("interleave: needs x86-64 without sanitizers");
        return ATTACK_SKIP;
    }
    attack_begin("interleave");
    printf("     %-34s %8s %6s %8s %6s %9s %7s %6s\n", "", "bytes", "steps", "at once", "late", "other id", "unseen", "twice");
    for (size_t r = 0; r < ROWS; r++) {
        for (size_t i = 0; i < SIZES; i++) {
            unsigned long n[OUTCOMES] = {0}, steps = 0;
            char first_bad[400] = "";
            attack_end_t end;
            for (unsigned long k = 1; k <= most; k++) {
                trial_t trial = {&rows[r], sizes[i], k};
                attack_run(trial_body, &trial, &end);
                if (end.count == 0)
                    attack_broken("a trial never came to its last step");
                bool past = attack_has(&end, "past the end");
                /* With the address handed out again, B's free is a free of a live block. */
                if (!attack_has(&end, "address in use again")) {
                    outcome_t o = judge(&end);
                    n[o]++;
                    steps++;
                    const char *why = attack_verdict(&end);
                    if (o > LATE && first_bad[0] == '\0')
                        snprintf(first_bad, sizeof first_bad, "  from step %lu: %s", k, why != NULL ? why : "late");
                }
                if (past)
                    break;
            }
            bool ok = n[AT_ONCE] + n[LATE] == steps;
            printf("%-4s %-34s %8zu %6lu %8lu %6lu %9lu %7lu %6lu%s\n", ok ? "ok" : "FAIL", rows[r].name, sizes[i],
                   steps, n[AT_ONCE], n[LATE], n[LATE_OTHER], n[UNSEEN], n[TWICE], first_bad);
            total += steps;
            good += n[AT_ONCE] + n[LATE];
            twice += n[TWICE];
        }
    }
    printf("interleave: %lu of %lu orders ended with double-free; %lu handed a live block out\n", good, total, twice);
    return good == total ? 0 : 1;
}
