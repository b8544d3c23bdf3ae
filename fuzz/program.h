/* Programs: what an input means. */
#ifndef BH_FUZZ_PROGRAM_H
#define BH_FUZZ_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum target {
    TARGET_API,
    TARGET_INBAND,
    TARGET_BADFREE,
    TARGET_CONTROL,
    TARGET_ARITH,
    TARGET_PROGRAMS, /* the ones above run programs */
    TARGET_OPTIONS = TARGET_PROGRAMS,
    TARGET_REPORT,
    TARGETS
} target_t;

typedef enum op {
#define OP(name, weight, targets, what) OP_##name,
#include "program.def"
#undef OP
    OPS
} op_t;

#define PROGRAM_HEADER 3u
#define PROGRAM_STEP 4u
#define PROGRAM_STEPS_MOST 200u
#define PLACES 64u

typedef struct step {
    op_t op;
    uint8_t a, b, c;
} step_t;

typedef struct program {
    const uint8_t *bytes;
    size_t size;
    target_t target;
    bool hardened, cold, refuse, every_step, look, mprotect; /* look: at all invariants, in the end; every_step: and between steps */
    bool any_size; /* no bound on blocks of MANY, and a far one on the bytes of all large blocks together */
    bool wide;     /* a wider bound on both than most have; any_size: too */
    bool plain;    /* as on a processor without wide registers and AES */
    uint32_t purge_delay;
    uint64_t seed;
    size_t steps;
} program_t;

void program_read(program_t *out, target_t target, const uint8_t *bytes, size_t size);
void program_step(const program_t *program, size_t i, step_t *out);

/* A size from two bytes: small ones, borders of size classes, OS pages, large ones. */
size_t program_size(uint8_t b, uint8_t c);
/* A number near the limits of arithmetic. */
size_t program_wild(uint8_t b);

const char *program_op_name(op_t op);
/* A first byte that means this instruction for the target, or -1. */
int program_byte(target_t target, op_t op);
const char *program_target_name(target_t target);

#endif
