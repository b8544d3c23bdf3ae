/* A program that brings options of its own. */
#include "program_options.h"

#ifdef PRELOADED
extern const char bh_program_options[];
#endif
#ifndef NO_OPTIONS
const char bh_program_options[] = "purge_delay=33:trap_from=64k:seal=1";
#endif

int main(void)
{
    free(malloc(100));
    tell();
    return 0;
}
