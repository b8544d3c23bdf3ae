/* Contents of blocks: for the model alone. */
#ifndef BH_FUZZ_MODEL_CONTENTS_H
#define BH_FUZZ_MODEL_CONTENTS_H

#include "model.h"

#define SHOWN ((size_t)16 * 1024) /* bytes looked at where all must be zero, or nobody else's */

/* The next stamp, of a block of so many usable bytes; 0: whose contents tell nothing. */
uint64_t model_stamp(size_t usable);
void model_fill(uintptr_t p, uint64_t stamp, size_t size, void (*fills)(uintptr_t at, size_t size));
/* What is known of [0, size) of a block at p that was filled as b was. */
void model_check_range(const block_t *b, uintptr_t p, size_t size);
/* Before a new block is filled, or one that grew from `from` bytes where it stands: what
 * is there was left by none whose contents must not show in it. */
void model_check_residue(uintptr_t p, size_t usable);
void model_check_growth(uintptr_t p, size_t from, size_t to);

#endif
