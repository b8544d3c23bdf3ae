/* A C program that was built against an installed Bulkhead: it runs the version
 * it was compiled for, and libc's names lead to it. */
#include <bulkhead.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
    int expected = BH_VERSION_MAJOR * 10000 + BH_VERSION_MINOR * 100 + BH_VERSION_PATCH;
    if (bh_version() != expected) {
        fprintf(stderr, "consumer: header %d, library %d\n", expected, bh_version());
        return 1;
    }
    /* Were malloc or strdup anybody else's, bh_usable_size would end us. */
    char *p = malloc(100), *q = strdup("from libc"), *r = bh_zalloc(100);
    if (p == NULL || q == NULL || r == NULL || bh_usable_size(p) < 100 || bh_usable_size(q) < 10 || r[99] != 0)
        return 1;
    bh_free(p);
    bh_free(q);
    free(r);

    bh_heap_t *heap = bh_heap_new();
    if (heap == NULL)
        return 1;
    p = bh_heap_malloc(heap, 50);
    if (p == NULL)
        return 1;
    bh_heap_destroy(heap);
    puts("consumer: ok");
    return 0;
}
