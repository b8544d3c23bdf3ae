/* Running and counting; what an end means is decided here, what happened by the
 * child's records (list_world.c) and the violation that it reported. */
#include "list_trial.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

typedef struct trial {
    uint64_t seed;
    const attack_t *attack;
} trial_t;

static world_t world; /* zero until a child builds its own */

static void trial_body(void *arg)
{
    const trial_t *t = arg;
    uint64_t seed = t->seed;
    /* Not every world has what an attack needs: another one then takes its place. */
    if (!world_build(&world, attack_random(&seed))) {
        attack_record("none", 0);
        return;
    }
    attack_record("corrupt-list|double-free", 0);
    if (!t->attack->run(&world)) {
        attack_record("none", 0);
        return;
    }
    world_go_on(&world);
    attack_record("went on", 0);
}

static bool is_none(const attack_end_t *end)
{
    return strcmp(end->records[0].word, "none") == 0 || attack_has(end, "none");
}

static const char *hit_of(const attack_end_t *end)
{
    for (unsigned i = 0; i < end->count; i++) {
        if (strncmp(end->records[i].word, "HIT", 3) == 0)
            return end->records[i].word;
    }
    return NULL;
}

static void count(tally_t *n, const attack_end_t *end, const trial_t *t)
{
    uintptr_t address;
    const char *id = attack_id(end, &address), *hit = hit_of(end), *why = attack_verdict(end);
    n->trials++;
    n->chosen += attack_has(end, "chosen");
    if (hit != NULL) {
        n->hits++;
        printf("  %s in a trial of \"%s\", world 0x%" PRIx64 "\n", hit, t->attack->name, t->seed);
    } else if (attack_has(end, "went on") && WIFEXITED(end->status) && WEXITSTATUS(end->status) == 0) {
        n->defused++;
    } else if (why == NULL && t->attack->may != DEFUSED) {
        n->list += strcmp(id, "corrupt-list") == 0;
        n->twice += strcmp(id, "double-free") == 0;
    } else if (t->attack->may == FAULTS && WIFSIGNALED(end->status) && WTERMSIG(end->status) == SIGSEGV) {
        n->faults++;
    } else {
        n->other++;
        printf("  an end that is not allowed in a trial of \"%s\", world 0x%" PRIx64 ": %s\n",
               t->attack->name, t->seed, why != NULL ? why : id);
    }
}

tally_t trial_many(const attack_t *attack, unsigned long trials, uint64_t *random)
{
    tally_t n = {0};
    for (unsigned long tried = 0; n.trials < trials && tried < 20 * trials + 100; tried++) {
        trial_t t = {attack_random(random), attack};
        attack_end_t end;
        attack_run(trial_body, &t, &end);
        if (end.count == 0)
            attack_broken("a world broke down before its attack");
        if (!is_none(&end))
            count(&n, &end, &t);
    }
    return n;
}
