/* Where a block comes from, in one word of control data: which kind of function
 * handed it out, the stack of that call, and a mark for whoever looks for leaks. */
#ifndef BH_HARDEN_ORIGIN_H
#define BH_HARDEN_ORIGIN_H

#include "harden/depot.h"

/* What a block was asked for with. malloc and the aligned functions of C have one
 * release; a `new` with alignment is one like any other. */
typedef enum bhi_kind { BHI_KIND_MALLOC, BHI_KIND_ALIGNED, BHI_KIND_NEW, BHI_KIND_NEW_ARRAY, BHI_KINDS } bhi_kind_t;

#define BHI_ORIGIN_STACK_BIT 3u
#define BHI_ORIGIN_MARK ((uint32_t)4)
_Static_assert(BHI_KINDS <= BHI_ORIGIN_MARK, "a kind leaves room for the mark");
_Static_assert(BHI_DEPOT_WORDS <= 1u << (32 - BHI_ORIGIN_STACK_BIT), "a stack's number fits");

BH_INLINE uint32_t bhi_origin(bhi_kind_t kind, uint32_t stack)
{
    return stack << BHI_ORIGIN_STACK_BIT | (uint32_t)kind;
}

BH_INLINE bhi_kind_t bhi_origin_kind(uint32_t origin)
{
    return (bhi_kind_t)(origin & (BHI_ORIGIN_MARK - 1));
}

BH_INLINE uint32_t bhi_origin_stack(uint32_t origin)
{
    return origin >> BHI_ORIGIN_STACK_BIT;
}

#endif
