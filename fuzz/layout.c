/* Where the kernel puts things. */
#include "layout.h"

#include <stdlib.h>
#include <sys/personality.h>
#include <unistd.h>

#define TRIED "FUZZ_LAID_OUT" /* for sandboxes that say yes and do nothing */

void layout_fix(char **argv)
{
    int now = personality(0xffffffff);
    if (now == -1 || (now & ADDR_NO_RANDOMIZE) != 0 || getenv(TRIED) != NULL)
        return;
    if (personality((unsigned)now | ADDR_NO_RANDOMIZE) == -1 || setenv(TRIED, "1", 1) != 0)
        return;
    execv("/proc/self/exe", argv);
}
