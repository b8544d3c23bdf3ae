/* Thread contexts: each has the thread-local variables of src/core, and an identity. */
#include "window/window.h"

#include "core/thread.h"

#include "window/inside.h"
#include "window/parts.h"

#include <string.h>

#define IDENTITIES 4u

static struct context {
    context_vars_t vars;
    uint64_t identity[IDENTITIES][8]; /* their addresses are the identities, as far apart as threads' */
    unsigned which;
} contexts[WINDOW_CONTEXTS];
static unsigned present;

static void save(context_vars_t *to)
{
    parts_thread_save(to);
    parts_hazard_save(to);
    parts_heap_save(to);
}

static void load(const struct context *from)
{
    parts_thread_load(&from->vars);
    parts_hazard_load(&from->vars);
    parts_heap_load(&from->vars);
    bhi_window_self = (bhi_owner_t)from->identity[from->which];
}

void inside_reset_contexts(void)
{
    for (unsigned i = 0; i < WINDOW_CONTEXTS; i++) {
        memset(&contexts[i].vars, 0, sizeof contexts[i].vars);
        contexts[i].which = 0;
    }
    present = 0;
    load(&contexts[0]);
}

void window_switch(unsigned context)
{
    save(&contexts[present].vars);
    present = context;
    load(&contexts[present]);
}

unsigned window_context(void)
{
    return present;
}

void window_thread_exit(void)
{
    parts_thread_exit();
}

bool window_thread_has_ended(void)
{
    context_vars_t now;
    save(&now);
    return now.ended;
}

void window_thread_new(bool watched)
{
    struct context *c = &contexts[present];
    if (watched) {
        parts_thread_exit();
        c->which = (c->which + 1) % IDENTITIES;
    }
    memset(&c->vars, 0, sizeof c->vars);
    load(c);
}
