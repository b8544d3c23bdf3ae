/* An unwinder for stacks, where the process has none yet. In the shared library
 * only: a static program has no dynamic loader to ask. libgcc's is loaded as glibc's
 * own backtrace does it; nothing here depends on it at run time. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "core/init.h"
#include "meta/types.h"
#include "rt/settings.h"
#include "rt/stack.h"

#include <dlfcn.h>
#include <string.h>

static bool find(void *object, bhi_unwinder_t *out)
{
    void *backtrace = dlsym(object, "_Unwind_Backtrace"), *address_in = dlsym(object, "_Unwind_GetIPInfo");
    memcpy(&out->backtrace, &backtrace, sizeof backtrace); /* ISO C converts no object pointer to a function's */
    memcpy(&out->address_in, &address_in, sizeof address_in);
    return backtrace != NULL && address_in != NULL;
}

/* After core/init.c's, before the program's own. */
__attribute__((constructor(102))) static void find_unwinder(void)
{
    bhi_unwinder_t found;
    if (!bhi_init() || !bhi_stack_wants_unwinder())
        return;
    void *object = NULL;
    if (!find(RTLD_DEFAULT, &found)) {
        object = dlopen("libgcc_s.so.1", RTLD_NOW | RTLD_LOCAL); /* for the life of the process */
        if (object == NULL || !find(object, &found))
            return;
    }
    bhi_state_lock();
    bhi_stack_set_unwinder(&found);
    bhi_state_unlock();
}
