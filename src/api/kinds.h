/* What operators.c is made of, by kind of block: the fast paths of malloc and free, and
 * behind them functions that know which operator was called. For operators.c alone;
 * visible, since it is a member of its own in the archive, but not exported. */
#ifndef BH_API_KINDS_H
#define BH_API_KINDS_H

#include "bulkhead.h"

/* NULL: no memory, or an impossible alignment. */
BH_EXPORT void *bhi_new(size_t size);
BH_EXPORT void *bhi_new_array(size_t size);
BH_EXPORT void *bhi_new_aligned(size_t alignment, size_t size);
BH_EXPORT void *bhi_new_array_aligned(size_t alignment, size_t size);

/* Tells the kind of a block that the C++ library's way got from malloc; NULL is none. */
BH_EXPORT void *bhi_as_new(void *p);
BH_EXPORT void *bhi_as_new_array(void *p);

/* Sizes and alignments are compared with the block, as bh_free_sized does. */
BH_EXPORT void bhi_delete(void *p);
BH_EXPORT void bhi_delete_array(void *p);
BH_EXPORT void bhi_delete_sized(void *p, size_t size);
BH_EXPORT void bhi_delete_array_sized(void *p, size_t size);
BH_EXPORT void bhi_delete_aligned_sized(void *p, size_t alignment, size_t size);
BH_EXPORT void bhi_delete_array_aligned_sized(void *p, size_t alignment, size_t size);

/* Of operators.c: whether all operators that the program uses are ours. */
BH_EXPORT bool bhi_operators_kept(void) __attribute__((weak));

#endif
