/* Huge spans. A program may reserve terabytes and touch none of them; to write the
 * header of each segment would cost it memory and time for all. So only a few say
 * that they belong to a span: see S7 in meta/types.h.
 *
 * Why find needs no others: of the multiples of powers of two at or below an index
 * i of the span [first, first + n), take the one of the largest power, p, that is
 * not below `first`. The next power's is below, so p - power is, and p is the first
 * multiple of its power in the span: marked. */
#include "meta/huge.h"

#include "meta/arena.h"

/* The first multiple of a power of two not below an index. */
static uint32_t round_up(uint32_t index, uint32_t power)
{
    return (index + power - 1) & ~(power - 1);
}

void bhi_huge_mark(bhi_segment_t *first, uint32_t n)
{
    bhi_segment_t *headers = bhi_segment_arena(first)->headers;
    uint32_t index = (uint32_t)(first - headers);
    uint32_t distance = 0;
    /* Of a power beyond n there is one multiple at most, and that is marked for a
     * smaller one. */
    for (uint32_t power = 1; distance < n && power < 2 * n; power *= 2) {
        first[distance].kind = distance == 0 ? BHI_SEGMENT_HUGE : BHI_SEGMENT_HUGE_REST;
        first[distance].run = distance == 0 ? n : distance;
        distance = round_up(index, power * 2) - index;
    }
}

/* The span of which a header says, or said once, that it belongs to it. What the
 * first one says is never out of date. */
static bhi_segment_t *span_of(const bhi_arena_t *arena, uint32_t mark, uint32_t index)
{
    const bhi_segment_t *s = &arena->headers[mark];
    uint32_t distance = s->kind == BHI_SEGMENT_HUGE_REST ? s->run : 0;
    if (distance > mark)
        return NULL;
    uint32_t first = mark - distance;
    bhi_segment_t *span = &arena->headers[first];
    return span->kind == BHI_SEGMENT_HUGE && index - first < span->run ? span : NULL;
}

bhi_segment_t *bhi_huge_find(const bhi_arena_t *arena, uint32_t index)
{
    uint32_t mark = index;
    for (uint32_t power = 1; power != 0; power *= 2) {
        mark &= ~(power - 1);
        bhi_segment_t *span = span_of(arena, mark, index);
        if (span != NULL || mark == 0)
            return span;
    }
    return NULL;
}
