/* The deferred-free callback: at most one page's capacity of allocations apart,
 * with a heartbeat that grows, free to allocate and free itself. */
#include "support.h"

#include <bulkhead.h>

#include <pthread.h>
#include <stdlib.h>

#define PAGE_BYTES ((size_t)65536)
#define ALLOCATIONS 200000

/* What the callback sees, of the thread that it runs in. */
struct view {
    unsigned long long last;
    size_t calls;
    size_t forced;
    size_t not_growing;
    size_t nested;
    bool inside;
    size_t since; /* allocations since the last call */
    size_t most;
};

/* Volatile, since libc declares malloc a leaf function, which promises the
 * compiler that a call of it does not come back into this file. It does. */
static _Thread_local volatile struct view view;
static int mark;

static void callback(bool force, unsigned long long heartbeat, void *arg)
{
    view.calls++;
    view.forced += force;
    if (heartbeat <= view.last || arg != &mark)
        view.not_growing++;
    if (view.inside)
        view.nested++;
    view.last = heartbeat;
    view.since = 0;
    view.inside = true;
    for (size_t i = 0; i < 3; i++)
        free(malloc((size_t)16 << (3 * i)));
    /* As a runtime does with a backlog: memory that outlives the callback. */
    static _Thread_local void *kept;
    free(kept);
    kept = force ? NULL : malloc(48);
    view.inside = false;
}

static void *counted(size_t size)
{
    void *p = malloc(size);
    if (++view.since > view.most)
        view.most = view.since;
    return p;
}

enum pattern { KEEP, PAIRS, BATCHES, PATTERNS };
static const char *const pattern_names[PATTERNS] = {"kept", "freed at once", "in batches"};

static void run(size_t size, enum pattern pattern)
{
    static _Thread_local void *batch[300];
    void **kept = pattern == KEEP ? limits_table(ALLOCATIONS * sizeof *kept) : NULL;
    view = (struct view){.last = view.last};
    for (size_t i = 0; i < ALLOCATIONS; i++) {
        void *p = counted(size);
        if (p == NULL)
            limits_broken("no memory");
        if (pattern == KEEP) {
            kept[i] = p;
        } else if (pattern == PAIRS) {
            free(p);
        } else {
            batch[i % 300] = p;
            for (size_t j = 0; i % 300 == 299 && j < 300; j++)
                free(batch[j]);
        }
    }
    for (size_t i = 0; pattern == KEEP && i < ALLOCATIONS; i++)
        free(kept[i]);
    for (size_t j = 0; pattern == BATCHES && j < ALLOCATIONS % 300; j++)
        free(batch[j]);
    size_t bound = PAGE_BYTES / size;
    limits_result(view.calls > 0 && view.most <= bound && view.not_growing == 0 && view.nested == 0,
                  "deferred: %zu B %s: %zu calls, at most %zu allocations apart, %zu heartbeats "
                  "that did not grow, %zu nested calls (bound %zu, 0, 0)",
                  size, pattern_names[pattern], view.calls, view.most, view.not_growing, view.nested,
                  bound);
}

static void *run_all(void *arg)
{
    static const size_t sizes[] = {16, 64, 1024};
    for (size_t s = 0; s < 3; s++)
        for (int p = 0; p < PATTERNS; p++)
            run(sizes[s], (enum pattern)p);
    return arg;
}

int main(void)
{
    limits_begin();
    bh_register_deferred_free(callback, &mark);
    run_all(NULL);
    pthread_t thread;
    if (pthread_create(&thread, NULL, run_all, NULL) != 0)
        limits_broken("no thread");
    pthread_join(thread, NULL);

    view = (struct view){.last = view.last};
    bh_collect(false);
    bh_collect(true);
    limits_result(view.forced >= 1 && view.calls >= 2 && view.not_growing == 0,
                  "deferred-collect: %zu calls, %zu of them forced (bound >= 2, 1)", view.calls,
                  view.forced);

    bh_register_deferred_free(NULL, NULL);
    size_t calls = view.calls;
    for (size_t i = 0; i < 10000; i++)
        free(malloc(1024));
    limits_result(view.calls == calls, "deferred-off: %zu calls after it was taken away (bound 0)",
                  view.calls - calls);
    return limits_end();
}
