/* The oracle: what a program may expect of an allocator, from bulkhead.h and the
 * documents alone. It has memory of its own, knows nothing of control data, and takes
 * nothing from the allocator's headers but the names of violations.
 *
 * An attack says what is promised of it: some violations are allowed from then on, or
 * one must come at once. A violation that nothing allows accuses a correct program. */
#ifndef BH_FUZZ_MODEL_H
#define BH_FUZZ_MODEL_H

#include "program.h"

#define HEAPS 4u
#define NO_HEAP 255u
#define CANARY_LEAST ((size_t)8) /* bytes of a block of profile hardened behind the requested ones: hardening-docs/canaries.md */

typedef enum block_state { BLOCK_NONE, BLOCK_LIVE, BLOCK_FREED } block_state_t;

typedef struct block {
    uintptr_t p;
    size_t size, usable;
    uint64_t stamp;      /* of its contents */
    uint8_t context, heap; /* that took it; heap: NO_HEAP or one of the context's */
    uint8_t state;
    bool unknown;        /* an attack changed its contents */
    bool aligned_at;     /* of an _at function: no sized free */
    bool irregular;      /* resized or aligned: its size class need not be that of its size */
    bool orphan;         /* its thread or its heap has ended */
    size_t alignment;
} block_t;

/* How strict a run is. */
typedef struct model {
    block_t block[PLACES];
    bool hardened;
    bool may_fail;       /* the kernel refuses: NULL for anything */
    bool control;        /* control data were attacked: only what cannot fail counts */
    bool strict;         /* then too an address outside the reservation is a finding */
    bool scribbled;      /* free memory was written to */
    bool copied;         /* words of blocks were written to others: contents tell no origin */
    bool irregular;      /* such a block was freed */
    uint32_t remote;     /* blocks freed by other threads than their own */
    uint64_t allowed;    /* violations, a bit for each */
    uint32_t step;
    uint64_t stamps;
    uint64_t hash;       /* of all addresses handed out */
} model_t;
extern model_t model;

/* What is known of memory: whether blocks may lie in [at, at + size), and whether it can
 * be read and written, or must not be touched at all; true where nobody knows. fills is
 * told what is written to blocks, fills_behind that one has so many usable bytes,
 * copied where the block went that run_api.c told the window of. */
typedef struct places {
    bool (*inside)(uintptr_t at, size_t size);
    bool (*open)(uintptr_t at, size_t size);
    bool (*closed)(uintptr_t at);
    void (*fills)(uintptr_t at, size_t size);
    void (*fills_behind)(uintptr_t p, size_t usable);
    void (*copied)(uintptr_t to);
} places_t;

void model_begin(bool hardened, const places_t *places);
bool model_inside(uintptr_t at, size_t size);

/* Called before the process ends for a finding. */
extern void (*model_on_finding)(void);
/* A finding: prints it and ends the process, so that the fuzzer keeps the input. */
_Noreturn __attribute__((format(printf, 1, 2))) void finding(const char *format, ...);

typedef struct wanted {
    size_t size, alignment, offset; /* p + offset is aligned */
    bool zero, exact;               /* exact: the documented bound of usable bytes applies */
    bool stayed;                    /* where it was, whose alignment it keeps */
    uint8_t context, heap;
} wanted_t;

/* A block was handed out: checks all that a program may rely on, fills it. */
void model_taken(unsigned place, uintptr_t p, const wanted_t *wanted);
/* NULL was returned: may it? */
void model_refused(const wanted_t *wanted, int error);

/* Before a block is freed or resized, and at the end. */
void model_check_contents(const block_t *block);
void model_given(block_t *block, unsigned context);
/* After resizing: contents up to the smaller of both sizes must be the same. */
void model_resized(unsigned place, uintptr_t p, const block_t *before, const wanted_t *wanted, bool rest_zero);

/* A heap has ended, `blocks_too`: with its blocks. heap NO_HEAP: the thread, whose other
 * heaps end before it. */
void model_heap_gone(uint8_t context, uint8_t heap, bool blocks_too);
/* Quarantines of the context's heap, or heaps, were emptied. */
void model_quarantine_emptied(void);

/* The live block that contains an address, or NULL. */
block_t *model_block_at(uintptr_t at);
/* Whether an address is one of the last freed blocks', and no live one's. */
bool model_was_freed(uintptr_t p);

/* An attack changed [from, from + size), all of it written: live blocks there have
 * unknown contents; returns the number of bytes that no live block owns. */
size_t model_attacked(uintptr_t from, size_t size);
/* In profile hardened a byte was changed outside of every block's requested size: true
 * if that must be found, when the block is freed or resized, and at the latest when
 * all is verified. */
bool model_must_find(uintptr_t at, uint8_t was, uint8_t value);
/* Whether one such byte is still there in [from, from + size) where `there`; its address. */
uintptr_t model_missed(uintptr_t from, size_t size, bool (*there)(uintptr_t at));
/* The same for bytes whose page has ended, which should have been looked at then. */
uintptr_t model_lost(bool (*there)(uintptr_t at));
/* Bytes of a live block from its start on that are its own, slack included. */
size_t model_extent(const block_t *block);

/* Size of the class that serves n bytes: 8; multiples of 16 to 128; then eight steps
 * to each power of two, to 128 KiB; then OS pages. */
size_t model_class(size_t n);

#endif
