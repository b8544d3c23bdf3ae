/* The pointers that a program must not free, and how each comes about. */
#ifndef BH_ATTACK_TARGETS_H
#define BH_ATTACK_TARGETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum target_class { TARGET_FOREIGN, TARGET_INVALID, TARGET_FREED, TARGET_LIVE, TARGET_ELSEWHERE } target_class_t;

typedef struct target_state {
    size_t size;   /* asked for */
    size_t usable; /* of block */
    uintptr_t block;
    uintptr_t target;
    target_class_t is; /* decides the expected id; TARGET_ELSEWHERE: freed or invalid, both are true */
    bool none;         /* no such target at this size */
} target_state_t;

typedef struct target {
    const char *name;
    void (*prepare)(target_state_t *);  /* the owner, while it lives */
    void (*aim)(target_state_t *);      /* the attacker, right before the mark; may be NULL */
    target_class_t is;
    bool once; /* does not depend on the size: tried with one size only */
} target_t;

extern const target_t targets[];
extern const size_t target_count;

/* A block of the size asked for, as a number, so that no compiler reasons about
 * what is done with it. Ends the test when there is no memory. */
uintptr_t target_take(size_t size);
void target_give(uintptr_t p);

#endif
