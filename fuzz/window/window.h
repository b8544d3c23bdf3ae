/* The window: what the fuzzing build may do with the allocator and nobody else can.
 * It brings all state back to the start for each input, switches thread contexts,
 * steps the clock, and comes back from violations. Compiled into no library.
 *
 * The start is one of two: cold, as after the process's start-up, or warm, with one
 * segment open and its guards in place, which saves most kernel calls. */
#ifndef BH_FUZZ_WINDOW_H
#define BH_FUZZ_WINDOW_H

#include "meta/types.h"
#include "rt/violation.h"

#include <setjmp.h>

#define WINDOW_CONTEXTS 3u

/* Beyond the violations: other ways in which a run may end. */
enum {
    WINDOW_FAULT = BHI_VIOLATIONS,
    WINDOW_ABORT,
    WINDOW_HANG,
    WINDOW_STRAY, /* the kernel was to change what is not the allocator's */
};

typedef struct window_start {
    uint64_t seed;        /* of everything random */
    bhi_options_t *options; /* as after start-up */
    bool cold;
    bool plain;           /* as on a processor without wide registers and AES */
    bool soft;            /* memory of blocks that the window keeps the guards of, see soft.c; what is cold then is the state */
} window_start_t;

/* The options of a profile, as at start-up without any source of them. */
void window_options(bhi_options_t *out, bhi_profile_t profile);

/* All state as at the start. Whatever the run before did, unless it ran while
 * trusted: then state need only be as an undamaged allocator leaves it. */
void window_reset(const window_start_t *start);

/* The run may have damaged control data, or had kernel calls refused: the next reset
 * takes nothing for granted. */
void window_distrust(void);

/* The program wrote there beside its live blocks. */
void window_scribbled(uintptr_t from, size_t size);

/* What soft memory knows of its contents: something else than zeroes was or will be written
 * there. And behind the usable bytes of block p, by the allocator, to the block's end. */
void window_fills(uintptr_t at, size_t size);
void window_fills_behind(uintptr_t p, size_t usable);
/* Block p may be copied elsewhere now; it was, all of it. */
void window_may_copy(uintptr_t p, size_t size);
void window_copied(uintptr_t to);

/* From here on a run may go round in circles: it is ended after some hundredths of a
 * second of processor time, else after one. */
void window_impatient(void);

/* Thread contexts 0 .. WINDOW_CONTEXTS - 1. */
void window_switch(unsigned context);
unsigned window_context(void);
/* The present context's destructors run: its heap goes, it may still allocate. */
void window_thread_exit(void);
bool window_thread_has_ended(void);
/* The context is a new thread. `watched`: the old one's last destructors ran;
 * otherwise it left its heap behind, and the new one has its identity. */
void window_thread_new(bool watched);

/* ms; the allocator's clock. */
extern uint64_t window_now;

/* How the run ended, where it did not return: longjmp(window_end.at, 1). */
typedef struct window_end {
    int id; /* bhi_violation_t, or WINDOW_* */
    uintptr_t address;
    sigjmp_buf at;
    volatile bool armed; /* faults and violations jump */
} window_end_t;
extern window_end_t window_end;
const char *window_end_id(int id);

/* Text that the allocator writes to descriptors, when wanted. */
extern void (*window_written)(int fd, const char *text, size_t length);

/* What files read as; NULL: they cannot be opened. */
extern const char *window_file;
extern size_t window_file_length;

/* Kernel calls of some kinds (a bit for each bhi_os_call_t) refused, so many times. */
void window_refuse(unsigned kinds, unsigned times, int error);

/* Addresses, for choosing and judging. */
typedef struct window_places {
    uintptr_t blocks, descs, headers, state, pool;
    size_t blocks_size, pool_size;
} window_places_t;
extern window_places_t window_places;
size_t window_pool_used(void);
/* Whether memory may be read and written, or not even touched, as far as the window knows. */
bool window_is_open(uintptr_t at, size_t size);
bool window_is_closed(uintptr_t at);
/* Segments that were ever in use. */
size_t window_segments(void);
/* Whether the allocator reserved all of [at, at + size), for blocks as far as known. */
bool window_is_inside(uintptr_t at, size_t size);

#endif
