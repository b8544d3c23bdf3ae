/* What the whole process shares and nobody may change after start-up: the page
 * is made read-only, and sealed where the kernel can, at the end of start-up.
 * Before start-up *block_open is 0, so no address is ours. */
#ifndef BH_RT_PROCESS_H
#define BH_RT_PROCESS_H

#include "base/constants.h"
#include "rt/options.h"

#include <stdatomic.h>

struct bhi_guarded_pool;
struct bhi_depot;
struct bhi_sites;
struct bhi_state;
struct bhi_random_root;
struct bh_report;

/* Thresholds of the digits of a random number (harden/choice.h), in parts of
 * 2^BHI_CHOICE_PLANES: bit i of plane[k] is bit k, the highest first, of digit i's. */
#define BHI_CHOICE_PLANES 32u
typedef struct bhi_choice {
    uint32_t digits; /* those that are ever 1 */
    uint32_t beyond; /* how often the number does not fit 32 digits, in such parts */
    uint32_t plane[BHI_CHOICE_PLANES];
} bhi_choice_t;

typedef uint64_t bhi_two_words_t __attribute__((vector_size(16), may_alias));

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
    /* Guarded blocks (harden/guarded.h); without any, guarded_size is 0. */
    uintptr_t guarded_base;              /* const: multiple of a chunk; secret */
    size_t guarded_size;                 /* const: bytes, a multiple of a chunk */
    struct bhi_guarded_pool *guarded;    /* const: in control data */
    struct bhi_depot *depot;             /* const: the same; NULL: stacks are not kept */
    struct bhi_sites *sites;             /* const: the same; NULL: call sites are not looked at */
    bhi_choice_t sample_choice; /* const: for sample_every */
    uint32_t sample_every; /* const: one allocation in so many is drawn: the rate, or for call sites more of them; 0: none */
    bool sampling;         /* const: allocations are chosen to be guarded */
    bool traced;           /* const: allocations and frees pass core/traced.c, for the three below or one of them */
    bool records;          /* const: kinds and stacks of blocks in pages are kept (core/record.h) */
    bool kinds;            /* const: a release is compared with the block's kind */
    bool fill;             /* const: blocks are filled with patterns (harden/wipe.h) */
    bool is_object;        /* const: this library is an object of its own, not part of the program */
    bool guards_by_madvise; /* const: guard regions work on this kernel */
    bool has_avx2;         /* const: of the processor, and the kernel keeps its registers */
    bool has_compress;     /* const: the same (harden/spread.h) */
    bool ready;            /* const: start-up is done */
    bool has_aes;          /* const: of the processor */
    bool short_ways;       /* const: malloc and free of small blocks go the short ways of profile hardened (core/hardened.h) */
    uint64_t canary_words[6]; /* const: harden/canary.c; secret */
    bhi_two_words_t canary_keys[6]; /* const: the same */
} bhi_process_t;

typedef union bhi_process_page {
    bhi_process_t p;
    char whole_os_pages[(sizeof(bhi_process_t) + BH_OS_PAGE_SIZE - 1) & ~(BH_OS_PAGE_SIZE - 1)];
} bhi_process_page_t;

extern BH_HIDDEN bhi_process_page_t bhi_process_page;
#define bhi_process (bhi_process_page.p)

#endif
