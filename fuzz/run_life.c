/* Instructions that begin and end heaps and threads. */
#include "run.h"

/* ------------------------------------------------------------------------ heaps */

static bh_heap_t *heap_of(unsigned i)
{
    return run.heap[window_context()][i % HEAPS];
}

static void do_heap_new(const step_t *s)
{
    unsigned t = window_context(), i = s->a % HEAPS;
    if (run.heap[t][i] != NULL)
        return;
    SAY("h[%u][%u] = bh_heap_new();", t, i);
    run.heap[t][i] = bh_heap_new();
    if (run.heap[t][i] == NULL && !run.late[t] && !model.may_fail && !model.control)
        finding("no new heap");
    for (unsigned other = 0; other < WINDOW_CONTEXTS; other++) {
        if (run.heap[t][i] != NULL && run.heap[t][i] == run.stale[other] && !model.control)
            finding("the handle of a heap that ended came back");
    }
    if (run.heap[t][i] != NULL && run.late[t])
        finding("a heap for a thread that has ended");
}

static void do_heap_alloc(const step_t *s)
{
    unsigned t = window_context(), i = s->b % HEAPS;
    bh_heap_t *heap = heap_of(i);
    if (heap == NULL)
        return;
    size_t size = s->c < 192 ? s->c : run_step_size(s);
    unsigned place = run_room(s->a);
    wanted_t w = run_want(size);
    w.heap = (uint8_t)i;
    w.zero = (s->b & 4) != 0;
    SAY("p[%u] = bh_heap_%salloc(h[%u][%u], %zu);", place, w.zero ? "z" : "m", t, i, size);
    run_took(place, w.zero ? bh_heap_zalloc(heap, size) : bh_heap_malloc(heap, size), &w);
}

static void do_heap_end(const step_t *s)
{
    unsigned t = window_context(), i = s->a % HEAPS;
    bh_heap_t *heap = heap_of(i);
    if (heap == NULL)
        return;
    bool destroy = (s->b & 1) != 0;
    SAY("bh_heap_%s(h[%u][%u]);", destroy ? "destroy" : "delete", t, i);
    if (destroy)
        bh_heap_destroy(heap);
    else
        bh_heap_delete(heap);
    model_heap_gone((uint8_t)t, (uint8_t)i, destroy);
    run.stale[t] = heap;
    run.heap[t][i] = NULL;
}

static void do_heap_realloc(const step_t *s)
{
    if (heap_of(s->b) != NULL)
        run_realloc(s->a % PLACES, s->c < 192 ? s->c : run_step_size(s), heap_of(s->b), s->b % HEAPS);
}

/* ---------------------------------------------------------------------- threads */

void run_switch(unsigned context)
{
    window_switch(context);
}

void run_regain_heap(void)
{
    unsigned t = window_context();
    if (run.left[t])
        bh_free(bh_malloc(1));
    run.left[t] = false;
}

static void end_thread(unsigned t)
{
    run_regain_heap();
    SAY("/* the thread's destructors run */");
    window_thread_exit();
    for (uint8_t i = 0; i < HEAPS; i++) {
        if (run.heap[t][i] != NULL) {
            model_heap_gone((uint8_t)t, i, false);
            run.stale[t] = run.heap[t][i];
            run.heap[t][i] = NULL;
        }
    }
    model_heap_gone((uint8_t)t, NO_HEAP, false);
    run.late[t] = true;
}

static void gone_thread(unsigned t)
{
    SAY("pthread_exit(NULL);");
    window_thread_new(true);
    run.late[t] = false;
}

#define LATE_MOST 8u

void run_bound_late(void)
{
    unsigned t = window_context();
    if (!run.late[t] || run.late_takes < LATE_MOST)
        return;
    gone_thread(t);
    run.late_takes = 0;
}

static void do_exit(const step_t *s)
{
    unsigned t = window_context(), how = s->b % 4;
    if (how == 3 && !run.late[t]) {
        SAY("/* the thread ends and nobody tells Bulkhead; the next one has its identity */");
        window_thread_new(false);
        run.left[t] = true;
        return;
    }
    if (!run.late[t])
        end_thread(t);
    else
        how = 1;
    if (how == 0)
        return; /* later destructors go on */
    if (how == 2)
        run_malloc(s->c, 100);
    gone_thread(t);
}

void run_life(const step_t *s)
{
    switch (s->op) {
    case OP_HEAP_NEW: do_heap_new(s); break;
    case OP_HEAP_ALLOC: do_heap_alloc(s); break;
    case OP_HEAP_REALLOC: do_heap_realloc(s); break;
    case OP_HEAP_END: do_heap_end(s); break;
    default: do_exit(s); break;
    }
}
