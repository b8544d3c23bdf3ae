/* A mutator for AFL++ that knows where instructions begin: copies, moves, removes,
 * swaps, repeats and splices whole ones, and changes single bytes of one. Targets that
 * run programs have it alone (tools/fuzz.sh): AFL++'s own mutations move the borders of
 * instructions, and stay with one program until some 90,000 of them were run. */
#include "program.h"

#include <stdlib.h>
#include <string.h>

typedef struct mutator {
    uint64_t state;
    uint8_t *out;
    size_t room;
} mutator_t;

/* The names are AFL++'s. */
void *afl_custom_init(void *afl, unsigned int seed);
size_t afl_custom_fuzz(void *data, uint8_t *in, size_t size, uint8_t **out, uint8_t *add, size_t add_size, size_t most);
void afl_custom_deinit(void *data);

static uint64_t next(mutator_t *m)
{
    m->state ^= m->state << 13;
    m->state ^= m->state >> 7;
    m->state ^= m->state << 17;
    return m->state;
}

static size_t below(mutator_t *m, size_t n)
{
    return n != 0 ? next(m) % n : 0;
}

void *afl_custom_init(void *afl, unsigned int seed)
{
    (void)afl;
    mutator_t *m = calloc(1, sizeof *m);
    if (m != NULL)
        m->state = seed * 2ull + 1;
    return m;
}

void afl_custom_deinit(void *data)
{
    mutator_t *m = data;
    free(m->out);
    free(m);
}

static uint8_t *step(uint8_t *bytes, size_t i)
{
    return bytes + PROGRAM_HEADER + i * PROGRAM_STEP;
}

/* Makes room for n instructions at `at`. */
static void open_gap(uint8_t *bytes, size_t steps, size_t at, size_t n)
{
    memmove(step(bytes, at + n), step(bytes, at), (steps - at) * PROGRAM_STEP);
}

/* One change of a program of so many instructions; returns how many it has then. */
static size_t change(mutator_t *m, uint8_t *bytes, size_t steps, size_t most, const uint8_t *add, size_t add_steps)
{
    static const uint8_t interesting[] = {0, 1, 2, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255};
    size_t at = below(m, steps + 1), other = below(m, steps), n = 1 + below(m, 4);
    if (steps == 0 || at == steps)
        n = 1;
    switch (below(m, 11)) {
    case 0: /* a random one */
        if (steps + 1 > most)
            return steps;
        open_gap(bytes, steps, at, 1);
        for (unsigned i = 0; i < PROGRAM_STEP; i++)
            step(bytes, at)[i] = (uint8_t)next(m);
        return steps + 1;
    case 1: /* some of its own again */
        if (steps == 0 || steps + n > most || other + n > steps)
            return steps;
        {
            uint8_t kept[4 * PROGRAM_STEP];
            memcpy(kept, step(bytes, other), n * PROGRAM_STEP);
            open_gap(bytes, steps, at, n);
            memcpy(step(bytes, at), kept, n * PROGRAM_STEP);
        }
        return steps + n;
    case 2: /* some of another program */
        if (add_steps < n || steps + n > most)
            return steps;
        open_gap(bytes, steps, at, n);
        memcpy(step(bytes, at), add + PROGRAM_HEADER + below(m, add_steps - n + 1) * PROGRAM_STEP, n * PROGRAM_STEP);
        return steps + n;
    case 3: /* some fewer */
        if (at + n > steps)
            return steps;
        memmove(step(bytes, at), step(bytes, at + n), (steps - at - n) * PROGRAM_STEP);
        return steps - n;
    case 4: /* two change places */
        if (at < steps) {
            uint8_t kept[PROGRAM_STEP];
            memcpy(kept, step(bytes, at), PROGRAM_STEP);
            memcpy(step(bytes, at), step(bytes, other), PROGRAM_STEP);
            memcpy(step(bytes, other), kept, PROGRAM_STEP);
        }
        return steps;
    case 5: /* the same place as another one */
        if (at < steps)
            step(bytes, at)[1] = step(bytes, other)[1];
        return steps;
    case 6:
        if (at < steps)
            step(bytes, at)[below(m, PROGRAM_STEP)] = interesting[below(m, sizeof interesting)];
        return steps;
    case 7:
        bytes[below(m, PROGRAM_HEADER)] ^= (uint8_t)(1u << below(m, 8));
        return steps;
    case 8: /* some of another program in place of as many of its own */
        n = 1 + below(m, 16);
        if (at + n <= steps && n <= add_steps)
            memcpy(step(bytes, at), add + PROGRAM_HEADER + below(m, add_steps - n + 1) * PROGRAM_STEP, n * PROGRAM_STEP);
        return steps;
    case 9: /* a little more or less */
        if (at < steps)
            step(bytes, at)[below(m, PROGRAM_STEP)] += (uint8_t)(1 + below(m, 16) - 8);
        return steps;
    default:
        if (at < steps)
            step(bytes, at)[below(m, PROGRAM_STEP)] = (uint8_t)next(m);
        return steps;
    }
}

size_t afl_custom_fuzz(void *data, uint8_t *in, size_t size, uint8_t **out, uint8_t *add, size_t add_size, size_t most)
{
    mutator_t *m = data;
    size_t room = PROGRAM_HEADER + PROGRAM_STEPS_MOST * PROGRAM_STEP;
    if (most < room)
        room = most;
    if (m->out == NULL)
        m->out = calloc(1, PROGRAM_HEADER + (PROGRAM_STEPS_MOST + 8) * PROGRAM_STEP);
    if (m->out == NULL || room < PROGRAM_HEADER + PROGRAM_STEP) {
        *out = in;
        return size;
    }
    size_t n = size < room ? size : room, limit = (room - PROGRAM_HEADER) / PROGRAM_STEP;
    memset(m->out, 0, PROGRAM_HEADER);
    memcpy(m->out, in, n);
    size_t steps = n > PROGRAM_HEADER ? (n - PROGRAM_HEADER) / PROGRAM_STEP : 0;
    size_t add_steps = add_size > PROGRAM_HEADER ? (add_size - PROGRAM_HEADER) / PROGRAM_STEP : 0;
    for (size_t changes = (size_t)1 << below(m, 4); changes > 0; changes--)
        steps = change(m, m->out, steps, limit, add, add_steps);
    *out = m->out;
    return PROGRAM_HEADER + steps * PROGRAM_STEP;
}
