/* What the programs of options.sh print: the options in force, whether settings
 * can still be changed, and whether the kernel started them as privileged. */
#ifndef BH_API_PROGRAM_OPTIONS_H
#define BH_API_PROGRAM_OPTIONS_H

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>

#ifdef PRELOADED /* the program knows nothing of Bulkhead */
typedef long get_long_fun(const char *name);
typedef int set_fun(const char *name, const char *value);
#define GET(name) ((get_long_fun *)dlsym(RTLD_DEFAULT, "bh_option_get_long"))(name)
#define SET(name, value) ((set_fun *)dlsym(RTLD_DEFAULT, "bh_option_set"))(name, value)
#else
#include <bulkhead.h>
#define GET(name) bh_option_get_long(name)
#define SET(name, value) bh_option_set(name, value)
#endif

static inline void tell(void)
{
    long purge_delay = GET("purge_delay"), show_stats = GET("show_stats"), trap_from = GET("trap_from");
    printf("purge_delay=%ld show_stats=%ld trap_from=%ld changes=%s secure=%lu\n", purge_delay, show_stats, trap_from,
           SET("purge_delay", "1") == 0 ? "yes" : "no", getauxval(AT_SECURE));
}

#endif
