/* One process, one sample: what a fresh process sees of the allocator's choices. */
#ifndef BH_RANDOM_PROBE_H
#define BH_RANDOM_PROBE_H

#include "meta/types.h"

#include <stddef.h>
#include <stdint.h>

#define PROBE_IN_ROW 64      /* consecutive allocations of a class */
#define PROBE_NEXT 8         /* allocations within which a freed block must not come back */
#define PROBE_ROUNDS 10000u  /* of malloc and free in tight pairs: at most, see probe_rounds */
#define PROBE_LIVE 1000u

/* Situations in which a block is freed. */
enum { PROBE_FRESH, PROBE_AMONG_LIVE, PROBE_TIGHT, PROBE_HOLE, PROBE_SITUATIONS };
/* Sizes: the classes of 16 to 256 B, for which there is a bound, then others. */
#define PROBE_BOUND_SIZES 16u
#define PROBE_SIZES 24u
size_t probe_size(unsigned i);
/* Tight pairs of that size. */
unsigned probe_rounds(unsigned i);

typedef struct probe_order {
    uint64_t behind[BHI_CLASSES]; /* of PROBE_IN_ROW - 1 */
} probe_order_t;

typedef struct probe_reuse {
    uint64_t back[PROBE_SIZES][PROBE_SITUATIONS]; /* 0 or 1 */
    uint64_t tight[PROBE_SIZES];                  /* of probe_rounds, all rounds */
} probe_reuse_t;

enum { PROBE_BLOCKS, PROBE_CONTROL, PROBE_DISTANCE, PROBE_HEAP, PROBE_ADDRESSES };
typedef struct probe_address {
    uint64_t value[PROBE_ADDRESSES]; /* in units of its alignment */
} probe_address_t;

/* Allocations of parent and child after a fork: of a class in use before it, and
 * of one that was not. */
typedef struct probe_fork {
    uint64_t used_same, used_all; /* of PROBE_IN_ROW places; whether all are the same */
    uint64_t fresh_same, fresh_all;
} probe_fork_t;

/* Other promises that are probabilities: of N allocations one is guarded; how soon a block
 * leaves its quarantine; what bytes stand behind a block of profile hardened. */
#define PROBE_SAMPLE_RATE 60u
#define PROBE_SAMPLED 6000u
#define PROBE_RING 48u   /* allocations of a small class within which a freed block does not come back, for certain */
#define PROBE_ARRAY 32u
#define PROBE_LATER 16u  /* allocations beyond */
typedef struct probe_chance {
    uint64_t guarded;     /* of PROBE_SAMPLED */
    uint64_t ring, later; /* whether the block came back within the ring, and so many frees later */
    uint64_t end;         /* the 54 bits of the shortest end that are not fixed; profile hardened */
} probe_chance_t;

typedef union probe_sample {
    probe_order_t order;
    probe_reuse_t reuse;
    probe_address_t address;
    probe_fork_t fork;
    probe_chance_t chance;
} probe_sample_t;

/* Fills the sample of one mode ("order", "reuse", "address", "fork", "chance"); its
 * size.
 * With `plant` it looks at a predictable allocator in Bulkhead's place. 0: no such
 * mode, or no memory. */
size_t probe_run(const char *mode, uint64_t seed, bool plant, probe_sample_t *out);

#endif
