/* What the whole process shares and nobody may change after start-up: the page
 * is made read-only, and sealed where the kernel can, at the end of start-up.
 * Before start-up *block_open is 0, so no address is ours. */
#ifndef BH_RT_PROCESS_H
#define BH_RT_PROCESS_H

#include "base/constants.h"
#include "rt/options.h"

#include <stdatomic.h>

struct bhi_state;
struct bhi_random_root;
struct bh_report;

typedef struct bhi_process {
    /* Address map of the first arena, in the order the free path reads it. */
    uintptr_t block_base;  /* const: first byte of the block reservation, segment-aligned; secret */
    const _Atomic(size_t) *block_open; /* const: how far from there descriptors are accessible; never NULL */
    uintptr_t descs;       /* const: page descriptor of slot 0; secret */
    uint64_t canary_mul;   /* const: odd multiplier of the canaries; secret */
    size_t block_size;     /* const: bytes reserved from block_base on, a multiple of a segment */
    struct bhi_state *state; /* const: everything that changes, in the control-data reservation */
    struct bhi_random_root *random_root; /* const: same place */
    void (*describe)(struct bh_report *report); /* const: core/describe.h; NULL before start-up */
    bhi_options_t options; /* const */
    bool guards_by_madvise; /* const: guard regions work on this kernel */
    bool has_avx2;         /* const: of the processor, and the kernel keeps its registers */
    bool ready;            /* const: start-up is done */
} bhi_process_t;

typedef union bhi_process_page {
    bhi_process_t p;
    char whole_os_pages[(sizeof(bhi_process_t) + BH_OS_PAGE_SIZE - 1) & ~(BH_OS_PAGE_SIZE - 1)];
} bhi_process_page_t;

extern BH_HIDDEN bhi_process_page_t bhi_process_page;
#define bhi_process (bhi_process_page.p)

#endif
