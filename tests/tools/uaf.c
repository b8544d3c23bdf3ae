/* A use after free with names to be found: by C functions, one of them inlined. */
#include <stdlib.h>

static inline __attribute__((always_inline)) void inlined_free(char *p)
{
    free(p); /* line 6 */
}

__attribute__((noinline)) static char *make_block(void)
{
    char *p = malloc(40); /* line 11 */
    p[0] = 1;
    return p;
}

__attribute__((noinline)) static void drop_block(char *p)
{
    inlined_free(p); /* line 18 */
    __asm__ volatile("" : : "r"(p));
}

__attribute__((noinline)) static int touch_block(volatile char *p)
{
    return p[3]; /* line 24 */
}

int main(void)
{
    char *p = make_block();
    drop_block(p);
    return touch_block(p);
}
