/* Requests that cannot be met, and the edges of the C and POSIX rules. */
#include "support.h"

#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MARK 4242

static unsigned checks;
static unsigned failed;

static void check(bool held, const char *what)
{
    checks++;
    if (!held) {
        failed++;
        printf("  does not hold: %s\n", what);
    }
}

/* Evaluates a call that must fail with NULL and the given errno. */
static void fails(void *p, int error, const char *what)
{
    check(p == NULL && errno == error, what);
    if (p != NULL || errno != error)
        printf("    gave %p, errno %d instead of %d\n", p, errno, error);
    errno = 0;
}

/* Volatile: the compiler must not know that these sizes are absurd. */
static volatile size_t above_ptrdiff = (size_t)PTRDIFF_MAX + 1;
static volatile size_t size_max = SIZE_MAX;
static volatile size_t zero = 0;

static void absurd_sizes(void)
{
    const size_t sizes[] = {above_ptrdiff, size_max, size_max - 1,    size_max - 15,
                            size_max - 16, size_max - 4095, size_max - 65535, size_max - 4 * MIB};
    errno = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i];
        fails(malloc(n), ENOMEM, "malloc above PTRDIFF_MAX");
        fails(calloc(1, n), ENOMEM, "calloc(1, n) above PTRDIFF_MAX");
        fails(calloc(n, 1), ENOMEM, "calloc(n, 1) above PTRDIFF_MAX");
        fails(realloc(NULL, n), ENOMEM, "realloc(NULL, n) above PTRDIFF_MAX");
        fails(reallocarray(NULL, n, 1), ENOMEM, "reallocarray(NULL, n, 1) above PTRDIFF_MAX");
        fails(aligned_alloc(64, n), ENOMEM, "aligned_alloc(64, n) above PTRDIFF_MAX");
        fails(memalign(4096, n), ENOMEM, "memalign(4096, n) above PTRDIFF_MAX");
        fails(valloc(n), ENOMEM, "valloc(n) above PTRDIFF_MAX");
        fails(pvalloc(n), ENOMEM, "pvalloc(n) above PTRDIFF_MAX");
        void *out = &out;
        errno = MARK;
        check(posix_memalign(&out, 64, n) == ENOMEM, "posix_memalign above PTRDIFF_MAX is ENOMEM");
        check(errno == MARK && out == (void *)&out, "posix_memalign keeps errno and *out");
        errno = 0;
    }
    /* A size that is legal and that no machine has. */
    fails(malloc((size_t)PTRDIFF_MAX), ENOMEM, "malloc(PTRDIFF_MAX)");
    fails(malloc(((size_t)1 << 62) + zero), ENOMEM, "malloc(2^62)");
    fails(malloc(((size_t)1 << 48) + zero), ENOMEM, "malloc(2^48)");
}

static void overflowing_products(void)
{
    errno = 0;
    fails(calloc(size_max / 2 + 1, 2), ENOMEM, "calloc whose product is 2^64");
    fails(calloc((size_t)1 << 33, ((size_t)1 << 31) + zero), ENOMEM, "calloc(2^33, 2^31)");
    fails(calloc(size_max, size_max), ENOMEM, "calloc(SIZE_MAX, SIZE_MAX)");
    fails(reallocarray(NULL, size_max / 16 + 2, 16), ENOMEM, "reallocarray whose product wraps");
    char *p = malloc(100);
    memset(p, 7, 100);
    /* Read anew each time, or the compiler takes the block for freed. */
    char *volatile same = p;
    fails(reallocarray(same, size_max / 16 + 2, 16), ENOMEM, "reallocarray of a block, wrapping");
    fails(realloc(same, above_ptrdiff), ENOMEM, "realloc of a block above PTRDIFF_MAX");
    check(p[0] == 7 && p[99] == 7 && malloc_usable_size(p) >= 100,
          "a block is untouched by a realloc that failed");
    free(p);
    p = calloc(zero, 8);
    check(p != NULL, "calloc(0, 8) is not NULL");
    free(p);
    p = calloc(8, zero);
    check(p != NULL, "calloc(8, 0) is not NULL");
    free(p);
}

static void alignments(void)
{
    static const size_t bad[] = {0, 3, 5, 24, 48, 100, 4095, SIZE_MAX, (size_t)PTRDIFF_MAX};
    errno = 0;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        volatile size_t alignment = bad[i];
        fails(aligned_alloc(alignment, 64), EINVAL, "aligned_alloc, alignment no power of two");
        void *out = &out;
        errno = MARK;
        check(posix_memalign(&out, alignment, 64) == EINVAL, "posix_memalign, bad alignment: EINVAL");
        check(errno == MARK && out == (void *)&out, "posix_memalign keeps errno and *out");
        errno = 0;
    }
    for (size_t alignment = 1; alignment < sizeof(void *); alignment *= 2) {
        void *out = &out;
        volatile size_t a = alignment;
        check(posix_memalign(&out, a, 64) == EINVAL, "posix_memalign, alignment below a pointer's");
    }
    /* Huge ones may succeed, aligned, or fail softly. */
    for (unsigned shift = 20; shift < 64; shift++) {
        size_t alignment = (size_t)1 << shift;
        errno = 0;
        void *p = aligned_alloc(alignment, 64);
        check(p != NULL ? ((uintptr_t)p & (alignment - 1)) == 0 : errno == ENOMEM,
              "aligned_alloc with a huge alignment: aligned, or NULL and ENOMEM");
        check(p != NULL || shift > 26, "aligned_alloc with an alignment up to 64 MiB succeeds");
        free(p);
        errno = 0;
        p = aligned_alloc(alignment, size_max - alignment);
        check(p == NULL && errno == ENOMEM, "huge alignment and huge size: NULL and ENOMEM");
    }
    /* As glibc: the size need not be a multiple of the alignment. */
    for (size_t alignment = 1; alignment <= 65536; alignment *= 2) {
        char *p = aligned_alloc(alignment, alignment + 1);
        check(p != NULL && ((uintptr_t)p & (alignment - 1)) == 0 &&
                  malloc_usable_size(p) >= alignment + 1,
              "aligned_alloc with a size that is no multiple");
        free(p);
        void *q = NULL;
        if (alignment >= sizeof(void *)) {
            check(posix_memalign(&q, alignment, zero) == 0 && q != NULL,
                  "posix_memalign of 0 bytes is not NULL");
            free(q);
        }
    }
}

static void zero_sizes(void)
{
    void *p[64];
    for (int i = 0; i < 64; i++) {
        p[i] = malloc(zero);
        check(p[i] != NULL, "malloc(0) is not NULL");
        for (int j = 0; j < i; j++)
            check(p[i] != p[j], "malloc(0) is unique");
    }
    for (int i = 0; i < 32; i++)
        free(p[i]);
    for (int i = 32; i < 48; i++)
        check(realloc(p[i], zero) == NULL, "realloc(malloc(0), 0) is NULL");
    for (int i = 48; i < 64; i++) {
        char *q = realloc(p[i], 10);
        check(q != NULL, "realloc(malloc(0), 10) is a block");
        memset(q, 1, 10);
        free(q);
    }
    /* realloc(p, 0) frees: a loop that leaked would not fit the bound. */
    size_t before = limits_rss();
    for (int i = 0; i < 100000; i++) {
        char *q = malloc(4096);
        q[0] = 1;
        check(realloc(q, zero) == NULL, "realloc(p, 0) is NULL");
    }
    check(limits_rss() < before + 64 * MIB, "realloc(p, 0) frees the block");
    check(malloc_usable_size(NULL) == 0, "malloc_usable_size(NULL) is 0");
    free(NULL);
}

static void errno_kept(void)
{
    static const size_t sizes[] = {0, 8, 100, 5000, 100000, MIB, 64 * MIB};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *p = malloc(sizes[i]);
        if (sizes[i] > 0)
            p[0] = 1;
        errno = MARK;
        free(p);
        check(errno == MARK, "free keeps errno");
    }
    errno = MARK;
    free(NULL);
    check(errno == MARK, "free(NULL) keeps errno");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *p = NULL;
        errno = MARK;
        check(posix_memalign(&p, 64, sizes[i]) == 0 && errno == MARK,
              "posix_memalign that succeeds keeps errno");
        free(p);
    }
}

int main(void)
{
    limits_begin();
    absurd_sizes();
    overflowing_products();
    alignments();
    zero_sizes();
    errno_kept();
    /* Everything still works. */
    char *p = calloc(1000, 10);
    check(p != NULL && p[9999] == 0, "the process goes on");
    free(p);
    limits_result(failed == 0, "impossible: %u of %u checks do not hold (bound 0)", failed, checks);
    return limits_end();
}
