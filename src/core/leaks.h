/* Leaks: live blocks that nothing points to. A block is reached when an aligned word
 * of the program's memory (data, stacks and registers of its threads, thread-local
 * variables, what it mapped itself, and blocks that are reached) holds an address in it,
 * or just behind it. Words are taken for pointers whatever they are, so a leaked block
 * may pass for reached, and one that a program finds by a disguised pointer alone is
 * reported.
 *
 * Only where records are kept (core/record.h). While memory is looked through, other
 * threads are stopped (os/world.h), and state->lock is held: control data that it
 * guards are whole. Of what owners write without it, nothing is relied on but that it
 * can be read. */
#ifndef BH_CORE_LEAKS_H
#define BH_CORE_LEAKS_H

#include "core/record.h"

/* Start-up: the signal of option leak_signal. */
void bhi_leaks_init(void);

/* Looks and reports: a paragraph for each kind and stack of allocation, those with most
 * bytes first, and a line with the sums. With `quiet` nothing when there are no leaks.
 * Returns the number of leaked blocks; SIZE_MAX: it could not be looked (no records, no
 * memory, memory cannot be read), or another thread does. No allocation. */
size_t bhi_leaks_report(bool quiet);

/* The signal came: whoever allocates next reports. */
extern BH_HIDDEN _Atomic(bool) bhi_leaks_asked;
void bhi_leaks_answer(void);

/* -------------------------------------------------- leaks_scan.c */

/* A live block with a record. */
typedef struct bhi_found {
    uintptr_t block;
    size_t size; /* requested */
    _Atomic(uint32_t) *origin;
} bhi_found_t;

typedef struct bhi_scan {
    bhi_found_t *work;   /* reached, not looked through; room for every live block */
    size_t count, most;
    unsigned char *copy; /* BHI_SCAN_COPY bytes */
    uintptr_t own_from, own_to; /* this search's memory */
    uintptr_t stack;     /* of this thread: what lies below is nobody's */
    int pagemap;         /* descriptor, or negative */
    size_t os_page;      /* the kernel's, which may be smaller than the build's */
    bool direct;         /* memory is read without the kernel's help */
} bhi_scan_t;
#define BHI_SCAN_COPY ((size_t)64 * 1024)

/* Calls `each` for every live block with a record. */
void bhi_scan_blocks(void (*each)(const bhi_found_t *found, void *arg), void *arg);

/* Marks all blocks that are reached; no block is marked before. False: the list of
 * mappings cannot be read. */
bool bhi_scan_mark(bhi_scan_t *scan);

#endif
