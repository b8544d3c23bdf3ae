/* The same block freed by two threads at once. */
#ifndef BH_ATTACK_RACE_H
#define BH_ATTACK_RACE_H

#include "child.h"

typedef enum race_kind { RACE_OWNER_REMOTE, RACE_REMOTE_REMOTE, RACE_OWNER_DEAD, RACE_KINDS } race_kind_t;

extern const char *const race_names[RACE_KINDS];

typedef struct race {
    race_kind_t kind;
    size_t size;
    uint64_t seed; /* decides by how much one thread is later than the other */
} race_t;

/* Body of a child: both frees are done when it returns, and if the process got
 * that far it has recorded "late" and then looked for the trace of the double
 * free: collected, and allocated from the class until the block came up. */
void race_body(void *race);

/* What follows a double free that was not seen at once; by the owner, or by any
 * thread when the owner is gone. Ends with a record "handed out twice" if so. */
void race_settle(size_t size, uintptr_t block);

#endif
