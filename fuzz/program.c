/* The decoder; see program.def. */
#include "program.h"

#include <string.h>

static const struct {
    const char *name;
    unsigned weight, targets;
} ops[OPS] = {
#define OP(name, weight, targets, what) {#name, weight, targets},
#include "program.def"
#undef OP
};

static const char *const names[TARGETS] = {"api", "inband", "badfree", "control", "arith", "options", "report"};

typedef struct table {
    unsigned n;
    uint8_t op[256];
} table_t;

/* Which instruction each first byte means: each has as many bytes as its weight says,
 * again and again. */
static const table_t *table_of(target_t target)
{
    static table_t tables[TARGET_PROGRAMS];
    table_t *t = &tables[target];
    while (t->n < sizeof t->op) {
        for (unsigned op = 0; op < OPS; op++) {
            for (unsigned i = 0; (ops[op].targets >> target & 1) != 0 && i < ops[op].weight && t->n < sizeof t->op; i++)
                t->op[t->n++] = (uint8_t)op;
        }
    }
    return t;
}

void program_read(program_t *out, target_t target, const uint8_t *bytes, size_t size)
{
    static const uint32_t delays[4] = {10, 0, 1, 1000};
    uint8_t header[PROGRAM_HEADER] = {0};
    memcpy(header, bytes, size < PROGRAM_HEADER ? size : PROGRAM_HEADER);
    uint8_t mode = header[0];
    size_t left = size > PROGRAM_HEADER ? size - PROGRAM_HEADER : 0, steps = (left + PROGRAM_STEP - 1) / PROGRAM_STEP;
    *out = (program_t){
        .bytes = bytes, .size = size, .target = target,
        .hardened = (mode & 1) != 0, .mprotect = (mode & 0x3e) == 0x3e, .cold = (mode & 0x1e) == 0x1e,
        .refuse = (mode & 0x30) == 0x30, .purge_delay = delays[mode >> 6], .every_step = (mode & 0x3e) == 0x2c, .look = (header[2] & 31) == 16 || (mode & 0x3e) == 0x2c,
        .any_size = target != TARGET_API || (header[1] & 63) == 16, .plain = (header[1] & 7) == 5, .wide = target != TARGET_API || (header[1] & 15) == 0,
        .seed = (uint64_t)header[1] << 8 | header[2], .steps = steps < PROGRAM_STEPS_MOST ? steps : PROGRAM_STEPS_MOST};
}

void program_step(const program_t *program, size_t i, step_t *out)
{
    uint8_t step[PROGRAM_STEP] = {0};
    size_t at = PROGRAM_HEADER + i * PROGRAM_STEP, left = program->size - at;
    memcpy(step, program->bytes + at, left < PROGRAM_STEP ? left : PROGRAM_STEP);
    *out = (step_t){(op_t)table_of(program->target)->op[step[0]], step[1], step[2], step[3]};
}

size_t program_size(uint8_t b, uint8_t c)
{
    size_t k = b;
    switch (c >> 5) {
    case 0:
    case 1: /* zero seldom: it costs many kernel calls */
        return (k & 127) != 0 || (c & 7) == 7 ? k & 127 : 16;
    case 2:
        return k * 8;
    case 3: { /* the border of a size class, and around it */
        size_t power = (size_t)1 << (3 + k % 16), border = power + power / 8 * (k >> 4 & 7);
        return border + (c & 31) % 9 - 4;
    }
    case 4:
        return k * 64 + (c & 31);
    case 5:
        return (k & 7) != 0 ? k * 8 + (c & 31) : k * 256 + (c & 31);
    case 6: /* rarely beyond the classes: each costs kernel calls */
        return (k & 7) != 0 ? k * 4 : k * 4096 + (c & 31) - (k != 0 ? 8 : 0);
    default:
        return (k & 31) == 0 ? k * 65536 + (c & 31) : k * 16;
    }
}

size_t program_wild(uint8_t b)
{
    size_t power = (size_t)1 << (b & 63), small = b & 15;
    switch (b >> 6) {
    case 0: return small;
    case 1: return power;
    case 2: return power - 1;
    default: break;
    }
    switch (b >> 4 & 3) {
    case 0: return PTRDIFF_MAX - small * 4096;
    case 1: return (size_t)PTRDIFF_MAX + 1 + small;
    case 2: return SIZE_MAX - small;
    default: return SIZE_MAX - small * 4096;
    }
}

const char *program_op_name(op_t op)
{
    return ops[op].name;
}

int program_byte(target_t target, op_t op)
{
    const table_t *t = table_of(target);
    for (unsigned i = 0; i < sizeof t->op; i++) {
        if (t->op[i] == op)
            return (int)i;
    }
    return -1;
}

const char *program_target_name(target_t target)
{
    return names[target];
}
