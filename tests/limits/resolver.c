/* A program that allocates in the resolver of an indirect function, which runs
 * while the loader still relocates: before any constructor, and before thread-local
 * variables have their initial values. Ends with 0 if all that it got then is what a
 * block must be; early.c runs it. */
#include <stdint.h>
#include <stdlib.h>

#define BLOCKS 300u

static unsigned char *block[BLOCKS];
static size_t size[BLOCKS];

/* No call but to the allocator: others may not be relocated yet. */
static void fill(unsigned i)
{
    for (size_t k = 0; k < size[i]; k += 7)
        block[i][k] = (unsigned char)(i + k);
}

static int keeps(unsigned i)
{
    for (size_t k = 0; k < size[i]; k += 7)
        if (block[i][k] != (unsigned char)(i + k))
            return 0;
    return 1;
}

static void take(unsigned i)
{
    size[i] = i % 50 == 49 ? (size_t)300000 : (size_t)i * i % 5000 + 1;
    block[i] = i % 3 == 0 ? calloc(1, size[i]) : malloc(size[i]);
    if (block[i] == NULL)
        abort();
    fill(i);
}

static int all_kept(void)
{
    for (unsigned i = 0; i < BLOCKS; i++)
        if (!keeps(i))
            return 0;
    return 1;
}

typedef int check_fun(void);

__attribute__((used)) static check_fun *resolve(void)
{
    for (unsigned i = 0; i < BLOCKS; i++)
        take(i);
    for (unsigned i = 0; i < BLOCKS; i += 5) {
        free(block[i]);
        take(i);
    }
    for (unsigned i = 1; i < BLOCKS; i += 5) {
        block[i] = realloc(block[i], size[i] + 100);
        if (block[i] == NULL)
            abort();
    }
    free(NULL);
    return all_kept;
}

int check(void) __attribute__((ifunc("resolve")));

int main(void)
{
    if (block[0] == NULL)
        return 2; /* the resolver has not run */
    if (!check())
        return 1;
    for (int round = 0; round < 3; round++) {
        for (unsigned i = 0; i < BLOCKS; i++)
            free(block[i]);
        for (unsigned i = 0; i < BLOCKS; i++)
            take(i);
        if (!check())
            return 1;
    }
    return 0;
}
