/* After Barnes and Hut's method for many bodies, of the SPLASH programs: each step
 * builds a tree of cubes around the bodies, computes the pull of far cubes as that of
 * one body, and drops the tree. Every cell and every leaf is a block of its own, of
 * 40 to 104 bytes. Most of the time goes into arithmetic along the tree: what counts
 * is where the blocks lie, and hardly the calls. */
#include "common.h"

enum { BODIES = 8000, MAX_DEPTH = 40 };

#define OPENING 0.8    /* a cell is one body if its width is below this part of its distance */
#define SOFTENING 1e-4 /* keeps the pull of near bodies finite */
#define STEP 1e-3

struct body {
    double at[3], speed[3], mass;
};

/* A leaf has a body, a cell up to eight children; `at` is the centre of mass. */
struct leaf {
    double at[3], mass;
    bool is_leaf;
};

struct cell {
    struct leaf sum;
    struct leaf *children[8];
};

static struct leaf *make_node(size_t size, const struct body *body)
{
    struct leaf *node = calloc(1, size);
    bench_check(node != NULL, "calloc");
    if (body != NULL)
        *node = (struct leaf){{body->at[0], body->at[1], body->at[2]}, body->mass, true};
    return node;
}

/* The child's number of a place, and in `centre` the middle of that child. */
static unsigned descend(const double *at, double *centre, double half)
{
    unsigned child = 0;
    for (unsigned d = 0; d < 3; d++) {
        bool above = at[d] >= centre[d];
        child |= (unsigned)above << d;
        centre[d] += above ? half / 2 : -half / 2;
    }
    return child;
}

static struct leaf *insert(struct leaf *node, struct leaf *leaf, const double *middle, double half, unsigned depth)
{
    bench_check(depth < MAX_DEPTH, "two bodies in one place");
    if (node == NULL)
        return leaf;
    double centre[3] = {middle[0], middle[1], middle[2]};
    if (node->is_leaf) {
        struct leaf *cell = make_node(sizeof(struct cell), NULL);
        cell = insert(cell, node, middle, half, depth);
        return insert(cell, leaf, middle, half, depth);
    }
    struct leaf **child = &((struct cell *)(void *)node)->children[descend(leaf->at, centre, half)];
    *child = insert(*child, leaf, centre, half / 2, depth + 1);
    return node;
}

/* Masses and their centres, from the leaves up. Returns the number of bodies. */
static unsigned sum_up(struct leaf *node)
{
    if (node == NULL || node->is_leaf)
        return node != NULL;
    unsigned bodies = 0;
    for (unsigned i = 0; i < 8; i++) {
        struct leaf *child = ((struct cell *)(void *)node)->children[i];
        bodies += sum_up(child);
        if (child == NULL)
            continue;
        node->mass += child->mass;
        for (unsigned d = 0; d < 3; d++)
            node->at[d] += child->mass * child->at[d];
    }
    for (unsigned d = 0; d < 3; d++)
        node->at[d] /= node->mass;
    return bodies;
}

static void pull(const struct leaf *node, const double *at, double width, double *force)
{
    if (node == NULL)
        return;
    double way[3], distance = SOFTENING;
    for (unsigned d = 0; d < 3; d++) {
        way[d] = node->at[d] - at[d];
        distance += way[d] * way[d];
    }
    if (node->is_leaf || width * width < OPENING * OPENING * distance) {
        double strength = node->mass / (distance * __builtin_sqrt(distance));
        for (unsigned d = 0; d < 3; d++)
            force[d] += strength * way[d];
        return;
    }
    for (unsigned i = 0; i < 8; i++)
        pull(((const struct cell *)(const void *)node)->children[i], at, width / 2, force);
}

static void drop(struct leaf *node)
{
    if (node == NULL)
        return;
    if (!node->is_leaf)
        for (unsigned i = 0; i < 8; i++)
            drop(((struct cell *)(void *)node)->children[i]);
    free(node);
}

static double half_width(const struct body *bodies)
{
    double half = 0;
    for (unsigned i = 0; i < BODIES; i++)
        for (unsigned d = 0; d < 3; d++)
            half = __builtin_fmax(half, __builtin_fabs(bodies[i].at[d]));
    return half * 1.001;
}

static void step(struct body *bodies)
{
    const double middle[3] = {0, 0, 0};
    double half = half_width(bodies);
    struct leaf *root = NULL;
    for (unsigned i = 0; i < BODIES; i++)
        root = insert(root, make_node(sizeof(struct leaf), &bodies[i]), middle, half, 0);
    bench_check(sum_up(root) == BODIES, "the tree lost a body");
    bench_check(__builtin_fabs(root->mass - 1) < 1e-6, "the tree lost mass");
    for (unsigned i = 0; i < BODIES; i++) {
        double force[3] = {0, 0, 0};
        pull(root, bodies[i].at, 2 * half, force);
        for (unsigned d = 0; d < 3; d++)
            bodies[i].speed[d] += STEP * force[d];
    }
    for (unsigned i = 0; i < BODIES; i++)
        for (unsigned d = 0; d < 3; d++)
            bodies[i].at[d] += STEP * bodies[i].speed[d];
    drop(root);
}

/* Dense in the middle, as galaxies are. */
static void place(struct body *bodies)
{
    struct bench_rng rng = bench_rng_for(0);
    for (unsigned i = 0; i < BODIES; i++) {
        double far = (double)bench_next(&rng) / 4294967296.0;
        bodies[i] = (struct body){.mass = 1.0 / BODIES};
        for (unsigned d = 0; d < 3; d++)
            bodies[i].at[d] = far * ((double)bench_next(&rng) / 2147483648.0 - 1);
    }
}

int main(int argc, char **argv)
{
    static struct body bodies[BODIES];
    place(bodies);
    for (uint64_t steps = bench_work(argc, argv, 20); steps > 0; steps--)
        step(bodies);
    return 0;
}
