/* The allocator under test, as the rest of the stress test sees it.
 *
 * With no plant every function is the bh_ function of the same name. A plant
 * makes this layer misbehave the way a broken allocator would, without itself
 * breaking the allocator's memory, so that the oracle's verdict is on the
 * fault and not on a crash after it.
 */
#ifndef STRESS_SUT_H
#define STRESS_SUT_H

#include "stress.h"

#include <bulkhead.h>

enum plant {
    PLANT_NONE,
    PLANT_DUPLICATE,   /* a live block handed out once more */
    PLANT_OVERLAP,     /* two blocks that share 16 bytes */
    PLANT_SHORT,       /* fewer usable bytes than asked for */
    PLANT_DIRTY,       /* calloc with a byte that is not zero */
    PLANT_LOST,        /* realloc that loses a byte */
    PLANT_CLOBBER,     /* a byte of a live block changes */
    PLANT_MISALIGNED,  /* 8-aligned where 16 is promised */
    PLANT_ALIGNED,     /* requested alignment not kept */
    PLANT_USABLE,      /* usable size changes during the block's life */
    PLANT_HEAP_MIX,    /* a heap served from another heap's page */
    PLANT_NULL,        /* no memory although there is some */
    PLANT_ERRNO,       /* free changes errno */
    PLANT_IMPOSSIBLE,  /* a block for an impossible size */
    PLANT_HEARTBEAT,   /* callback with a heartbeat that stands still */
    PLANT_LEAK,        /* free does nothing, for a while */
    PLANT_ABORT,       /* the allocator ends the process */
    PLANT_HANG,        /* an allocation never returns */
    PLANT_CHILD_HANG,  /* the same in a forked child only */
    PLANT_CHILD_LOST,  /* a block's contents differ in a forked child */
    PLANT_VISIT,       /* a live block that visiting a heap leaves out */
    PLANT_FIGURES,     /* statistics that count 16 bytes too many */
    PLANT_COUNT
};

extern enum plant sut_plant;

/* PLANT_COUNT when there is no such plant. */
enum plant plant_by_name(const char *name);

/* `heap` NULL: the calling thread's default heap. */
void *sut_malloc(bh_heap_t *heap, size_t size);
void *sut_zalloc(bh_heap_t *heap, size_t size);
void *sut_calloc(bh_heap_t *heap, size_t count, size_t size);
void *sut_aligned(bh_heap_t *heap, size_t alignment, size_t size);
void *sut_aligned_zalloc(bh_heap_t *heap, size_t alignment, size_t size);
int sut_posix_memalign(void **out, size_t alignment, size_t size);
void *sut_realloc(bh_heap_t *heap, void *p, size_t size);
void *sut_reallocarray(bh_heap_t *heap, void *p, size_t count, size_t size);
void sut_free(void *p);
void sut_free_sized(void *p, size_t size);
void sut_free_aligned_sized(void *p, size_t alignment, size_t size);
size_t sut_usable_size(const void *p);

/* The same for a block whose usable size is known already (PLANT_USABLE). */
size_t sut_usable_size_again(const void *p);

/* Every live block of a heap of the calling thread; false: this build has no
 * record of them. */
bool sut_visit(bh_heap_t *heap, bh_block_visit_fun *visitor, void *arg);

/* Bytes in live blocks of the whole process. */
size_t sut_used_bytes(void);

/* Called before the contents of a block are looked at, by the thread that
 * holds its record: the place where PLANT_CLOBBER acts without a data race. */
void sut_before_check(void *p, size_t size);

/* Called by a forked child before anything else. */
void sut_enter_child(void);

/* The heartbeat that the callback is to see. */
unsigned long long sut_heartbeat(unsigned long long beat);

#endif /* STRESS_SUT_H */
