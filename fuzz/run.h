/* Running programs: shared by the files that have the instructions. */
#ifndef BH_FUZZ_RUN_H
#define BH_FUZZ_RUN_H

#include "model.h"
#include "program.h"
#include "window/window.h"

#include "bulkhead.h"

/* One input of a target. Comes back unless there is a finding. */
void run_input(target_t target, const uint8_t *bytes, size_t size);
void run_options(const uint8_t *bytes, size_t size);
void run_report(const uint8_t *bytes, size_t size);

/* How the last program ended, for who asks: "returned", or an id. */
extern const char *run_verdict;

/* Not NULL: called around what is no part of the input's run. */
extern void (*run_coverage)(bool on);
/* window_reset, without coverage. */
void run_reset(const window_start_t *start);

/* Not NULL: each step and each call of it as C, before it is made. */
typedef struct run_trace {
    void (*step)(unsigned step, const char *op, unsigned thread);
    void (*line)(const char *text);
} run_trace_t;
extern const run_trace_t *run_trace;
__attribute__((format(printf, 1, 2))) void run_say(const char *format, ...);
#define SAY(...)                                                                                                       \
    do {                                                                                                               \
        if (__builtin_expect(run_trace != NULL, 0))                                                                    \
            run_say(__VA_ARGS__);                                                                                      \
    } while (0)

/* The program's own data. */
typedef struct run {
    program_t program;
    bh_heap_t *heap[WINDOW_CONTEXTS][HEAPS];
    bh_heap_t *stale[WINDOW_CONTEXTS]; /* the last one that ended */
    bool late[WINDOW_CONTEXTS];        /* the thread's destructors have run */
    bool left[WINDOW_CONTEXTS];        /* its heap is that of a thread which left it */
    unsigned busy;                     /* a place that a callback must not touch */
    size_t large_bytes;                /* asked for so far, see run_size */
    unsigned many;                     /* blocks taken by MANY so far */
    unsigned late_takes;               /* blocks that threads took whose destructors have run, see run_bound_late */
    uint64_t word;                     /* remembered by REPLAY */
    uintptr_t attack_from, attack_to;  /* where the attack writes or reads right now */
    bool attacking;
    uint64_t must;                     /* the call at hand has to end so */
} run_t;
extern run_t run;

#define ID(name) ((uint64_t)1 << BHI_##name)

/* Instructions. */
void run_api(const step_t *s);
void run_life(const step_t *s);
void run_inspect(const step_t *s);
void run_wild(const step_t *s);
void run_attack(const step_t *s);
void run_bad(const step_t *s);
void run_control(const step_t *s);

/* The size that is asked for in place of this one: few programs may have large blocks
 * without an end, as to clear and to wipe them takes most of such a program's time. */
size_t run_size(size_t size);
/* program_size, and run_size. */
size_t run_step_size(const step_t *s);
/* A block of the present thread's default heap. */
wanted_t run_want(size_t size);
/* Makes a place for a new block: what is there is freed. Returns its number. */
unsigned run_room(unsigned place);
/* A block was handed out for a place, or NULL. */
void run_took(unsigned place, const void *p, const wanted_t *w);
void run_malloc(unsigned place, size_t size);
/* heap NULL: the default heap. */
void run_realloc(unsigned place, size_t size, bh_heap_t *heap, uint8_t heap_index);

/* Frees the block at a place if there is one. */
void run_free(unsigned place);
/* Of a live block, or NULL. */
block_t *run_live(unsigned place);
void run_switch(unsigned context);
/* Before each step: a thread that has taken many blocks since its destructors ran ends, as
 * each takes a heap and lets all of that go again. */
void run_bound_late(void);
/* A heap that an earlier thread left is found with the first allocation. */
void run_regain_heap(void);
/* Whether memory at an address belongs to a page now. */
bool run_has_page(uintptr_t at);

#endif
