/* Many trials of one attack on a list, each in a world and a process of its own. */
#ifndef BH_ATTACK_LIST_TRIAL_H
#define BH_ATTACK_LIST_TRIAL_H

#include "list_world.h"

typedef enum ends {
    DEFUSED, /* the process goes on, always */
    SEEN,    /* or it ends with a violation */
    FAULTS   /* or by an access where nothing is */
} ends_t;

typedef struct attack {
    const char *name;
    bool (*run)(world_t *); /* false: not possible in this world */
    ends_t may;
} attack_t;

/* How the trials ended. hits: malloc returned what it must never return; other: an end
 * that the attack may not have; chosen: see world_go_on. */
typedef struct tally {
    unsigned long trials, list, twice, faults, defused, hits, other, chosen;
} tally_t;

/* As many trials as asked for, or fewer if the worlds seldom have what it needs. Prints
 * the worlds of hits and other ends. */
tally_t trial_many(const attack_t *attack, unsigned long trials, uint64_t *random);

#endif
