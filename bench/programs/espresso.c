/* After espresso, the logic minimiser of Berkeley that allocator benchmarks use:
 * the complement of a sum of products by recursion over the variables (Brayton and
 * others), then each product made as large as the complement allows, then those
 * dropped that others cover. A cover is a list of products, each a block of its own;
 * each step of the recursion makes and drops covers. A fifth of mimalloc's time are
 * calls, most of the others walks along the lists. */
#include "common.h"

enum { VARIABLES = 12, PRODUCTS = 30, MIN_LITERALS = 3, MAX_LITERALS = 8, PROBES = 40 };

/* Bit v of may[b]: the variable v may have the value b. Both: it does not matter. */
struct product {
    struct product *next;
    uint32_t may[2];
};

static struct product *prepend(struct product *next, uint32_t may_0, uint32_t may_1)
{
    struct product *p = malloc(sizeof *p);
    bench_check(p != NULL, "malloc");
    bench_check(p != next, "a product in two places");
    *p = (struct product){next, {may_0, may_1}};
    return p;
}

/* Not a product afterwards, so that one that was handed out twice ends once. */
static void drop(struct product *list)
{
    while (list != NULL) {
        struct product *next = list->next;
        bench_check((list->may[0] | list->may[1]) == UINT32_MAX, "a product has changed");
        list->may[0] = list->may[1] = 0;
        free(list);
        list = next;
    }
}

/* The variables that are literals of the product. */
static uint32_t literals(const struct product *p)
{
    return ~(p->may[0] & p->may[1]);
}

static bool intersect(const struct product *a, const struct product *b)
{
    return ((a->may[0] & b->may[0]) | (a->may[1] & b->may[1])) == UINT32_MAX;
}

static bool contains(const struct product *a, const struct product *b)
{
    return (b->may[0] & ~a->may[0]) == 0 && (b->may[1] & ~a->may[1]) == 0;
}

/* What is left of the cover where the variable has the value; not a literal there. */
static struct product *cofactor(const struct product *cover, unsigned variable, unsigned value)
{
    struct product *list = NULL;
    uint32_t bit = UINT32_C(1) << variable;
    for (; cover != NULL; cover = cover->next)
        if ((cover->may[value] & bit) != 0)
            list = prepend(list, cover->may[0] | bit, cover->may[1] | bit);
    return list;
}

/* The literal that most products have, in either sense. */
static unsigned most_frequent(const struct product *cover)
{
    uint8_t count[VARIABLES] = {0};
    unsigned best = 0;
    for (; cover != NULL; cover = cover->next)
        for (uint32_t left = literals(cover); left != 0; left &= left - 1)
            count[__builtin_ctz(left)]++;
    for (unsigned v = 1; v < VARIABLES; v++)
        if (count[v] > count[best])
            best = v;
    return best;
}

/* De Morgan: one product for each literal. */
static struct product *complement_of_one(const struct product *p)
{
    struct product *list = NULL;
    for (uint32_t left = literals(p); left != 0; left &= left - 1) {
        uint32_t bit = left & -left;
        list = prepend(list, ~(p->may[0] & bit), ~(p->may[1] & bit));
    }
    return list;
}

/* Moves the products of both covers into one, with the variable as a literal but
 * for those that both have at the same place. Takes both. */
static struct product *merge(struct product *zero, struct product *one, unsigned variable)
{
    uint32_t bit = UINT32_C(1) << variable;
    struct product *list = NULL;
    while (zero != NULL) {
        struct product *p = zero, **other = &one;
        zero = p->next;
        while (*other != NULL && ((*other)->may[0] != p->may[0] || (*other)->may[1] != p->may[1]))
            other = &(*other)->next;
        if (*other != NULL) {
            struct product *same = *other;
            *other = same->next;
            free(same);
        } else {
            p->may[1] &= ~bit;
        }
        p->next = list;
        list = p;
    }
    while (one != NULL) {
        struct product *p = one;
        one = p->next;
        p->may[0] &= ~bit;
        p->next = list;
        list = p;
    }
    return list;
}

static struct product *complement(const struct product *cover)
{
    if (cover == NULL)
        return prepend(NULL, UINT32_MAX, UINT32_MAX);
    for (const struct product *p = cover; p != NULL; p = p->next)
        if (literals(p) == 0)
            return NULL;
    if (cover->next == NULL)
        return complement_of_one(cover);
    unsigned variable = most_frequent(cover);
    struct product *halves[2];
    for (unsigned value = 0; value < 2; value++) {
        struct product *half = cofactor(cover, variable, value);
        halves[value] = complement(half);
        drop(half);
    }
    return merge(halves[0], halves[1], variable);
}

/* Takes literals away from the product while it stays outside of the complement. */
static void enlarge(struct product *p, const struct product *outside)
{
    for (uint32_t left = literals(p); left != 0; left &= left - 1) {
        struct product larger = *p;
        larger.may[0] |= left & -left;
        larger.may[1] |= left & -left;
        const struct product *o = outside;
        while (o != NULL && !intersect(&larger, o))
            o = o->next;
        if (o == NULL)
            *p = larger;
    }
}

/* Drops what lies in another product of the cover. */
static struct product *drop_covered(struct product *cover)
{
    struct product *kept = NULL;
    while (cover != NULL) {
        struct product *p = cover;
        const struct product *o = p->next;
        cover = p->next;
        while (o != NULL && !contains(o, p))
            o = o->next;
        for (const struct product *k = kept; o == NULL && k != NULL; k = k->next)
            o = contains(k, p) ? k : NULL;
        if (o != NULL) {
            free(p);
            continue;
        }
        p->next = kept;
        kept = p;
    }
    return kept;
}

static bool holds(const struct product *cover, uint32_t point)
{
    for (; cover != NULL; cover = cover->next)
        if (((cover->may[0] | point) & (cover->may[1] | ~point)) == UINT32_MAX)
            return true;
    return false;
}

static struct product *random_cover(struct bench_rng *rng)
{
    struct product *cover = NULL;
    for (unsigned i = 0; i < PRODUCTS; i++) {
        uint32_t may[2] = {UINT32_MAX, UINT32_MAX};
        for (uint32_t n = bench_between(rng, MIN_LITERALS, MAX_LITERALS); n > 0; n--) {
            uint32_t bit = UINT32_C(1) << bench_below(rng, VARIABLES);
            if ((may[0] & may[1] & bit) != 0)
                may[bench_below(rng, 2)] &= ~bit;
        }
        cover = prepend(cover, may[0], may[1]);
    }
    return cover;
}

static void minimise(struct bench_rng *rng)
{
    struct product *cover = random_cover(rng), *outside = complement(cover), *result = NULL;
    for (const struct product *p = cover; p != NULL; p = p->next)
        result = prepend(result, p->may[0], p->may[1]);
    for (struct product *p = result; p != NULL; p = p->next)
        enlarge(p, outside);
    result = drop_covered(result);
    for (unsigned i = 0; i < PROBES; i++) {
        uint32_t point = bench_next(rng);
        bool inside = holds(cover, point);
        bench_check(inside != holds(outside, point), "the complement is wrong");
        bench_check(inside == holds(result, point), "the minimised cover is wrong");
    }
    drop(cover);
    drop(outside);
    drop(result);
}

int main(int argc, char **argv)
{
    struct bench_rng rng = bench_rng_for(0);
    for (uint64_t work = bench_work(argc, argv, 7000); work > 0; work--)
        minimise(&rng);
    return 0;
}
