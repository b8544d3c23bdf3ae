/* A heap handle used by a thread that does not own it, or after its end: the
 * process ends with SIGABRT after a line that names the violation. */
#include "support.h"

#include <bulkhead.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LINE "bulkhead: ERROR: heap-misuse:"
#define MARKER "marker\n"

enum use { USE_MALLOC, USE_ZALLOC, USE_CALLOC, USE_REALLOC, USE_ALIGNED, USE_DELETE, USE_DESTROY, USES };
static const char *const use_names[USES] = {"malloc", "zalloc", "calloc", "realloc",
                                            "aligned_alloc", "delete", "destroy"};

enum owner { OTHER_THREAD, DELETED, DESTROYED, NO_HANDLE, DEAD_THREAD, OWNERS };
static const char *const owner_names[OWNERS] = {"of another thread", "after delete", "after destroy",
                                                "that is none", "of an ended thread"};

struct misuse {
    enum use use;
    enum owner owner;
    bh_heap_t *heap;
};

static void *commit(void *arg)
{
    const struct misuse *m = arg;
    void *p = NULL;
    /* What comes before the marker is not the misuse. */
    if (write(STDOUT_FILENO, MARKER, sizeof MARKER - 1) < 0)
        _exit(3);
    switch (m->use) {
    case USE_MALLOC:
        p = bh_heap_malloc(m->heap, 100);
        break;
    case USE_ZALLOC:
        p = bh_heap_zalloc(m->heap, 100000);
        break;
    case USE_CALLOC:
        p = bh_heap_calloc(m->heap, 10, 10);
        break;
    case USE_REALLOC:
        p = bh_heap_realloc(m->heap, NULL, 100);
        break;
    case USE_ALIGNED:
        p = bh_heap_aligned_alloc(m->heap, 64, 100);
        break;
    case USE_DELETE:
        bh_heap_delete(m->heap);
        break;
    default:
        bh_heap_destroy(m->heap);
        break;
    }
    return p;
}

static void *make_heap(void *arg)
{
    struct misuse *m = arg;
    m->heap = bh_heap_new();
    void *p = bh_heap_malloc(m->heap, 100);
    (void)p;
    return NULL;
}

static void in_thread(void *(*body)(void *), void *arg)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, body, arg) != 0)
        _exit(3);
    pthread_join(thread, NULL);
}

static void body(void *arg)
{
    struct misuse *m = arg;
    if (m->owner == DEAD_THREAD) {
        in_thread(make_heap, m);
        commit(m);
        return;
    }
    make_heap(m);
    switch (m->owner) {
    case DELETED:
        bh_heap_delete(m->heap);
        break;
    case DESTROYED:
        bh_heap_destroy(m->heap);
        break;
    case NO_HANDLE:
        m->heap = (bh_heap_t *)(uintptr_t)0x123456789a;
        break;
    default:
        in_thread(commit, m);
        return;
    }
    commit(m);
}

int main(void)
{
    limits_begin();
    unsigned tried = 0;
    unsigned missed = 0;
    for (int owner = 0; owner < OWNERS; owner++)
        for (int use = 0; use < USES; use++) {
            struct misuse m = {(enum use)use, (enum owner)owner, NULL};
            struct limits_child child;
            limits_fork(&child, 20, body, &m);
            tried++;
            const char *marker = strstr(child.output, MARKER);
            bool caught = WIFSIGNALED(child.status) && WTERMSIG(child.status) == SIGABRT &&
                          marker != NULL &&
                          strncmp(marker + sizeof MARKER - 1, LINE, sizeof LINE - 1) == 0;
            if (!caught) {
                missed++;
                printf("  not caught: %s in a heap %s: status %#x, output: %s\n", use_names[use],
                       owner_names[owner], (unsigned)child.status, child.output);
            }
        }
    limits_result(missed == 0, "heap-misuse: %u of %u kinds of misuse not caught (bound 0)", missed,
                  tried);
    return limits_end();
}
