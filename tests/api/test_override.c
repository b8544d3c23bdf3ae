/* The malloc family as a program sees it: every name is there and leads to
 * Bulkhead, every pair of allocating and freeing names fits, and the edges are
 * glibc's. Only names of libc are used, so that the same source is tested
 * linked with the shared library, with the archive, and preloaded. */
#define _GNU_SOURCE
#include <check.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Sizes that the compiler must not know: it would warn, or compute the result. */
static volatile size_t too_large = (size_t)PTRDIFF_MAX + 1;
static volatile size_t largest = SIZE_MAX;
static volatile size_t zero = 0;

static size_t os_page;

/* ---------------------------------------- names that headers do not declare */

typedef void *allocate_t(size_t);
typedef void *allocate_array_t(size_t, size_t);
typedef void *resize_t(void *, size_t);
typedef void release_t(void *);

static void *find(const char *name)
{
    void *p = dlsym(RTLD_DEFAULT, name);
    ck_assert_msg(p != NULL, "%s is not defined", name);
    return p;
}

/* Hides from the compiler where a pointer came from. */
static void *opaque(void *p)
{
    __asm__("" : "+r"(p));
    return p;
}

static int is_aligned(const void *p, size_t alignment)
{
    return ((uintptr_t)p & (alignment - 1)) == 0;
}

/* How many of the bytes are not `value`. One assertion for the sum: Check
 * writes to a pipe for each. */
static size_t differing(const void *p, int value, size_t size)
{
    const unsigned char *bytes = p;
    size_t n = 0;
    for (size_t i = 0; i < size; i++)
        n += bytes[i] != value;
    return n;
}

/* Writes every byte of a block and reads it back. */
static void use(void *p, size_t size)
{
    memset(p, 0xa5, size);
    ck_assert_uint_eq(differing(opaque(p), 0xa5, size), 0);
}

/* -------------------------------------------------------------- violations */

/* Runs fun(p) in a child, which must end with SIGABRT after a report with `id`.
 * A build without hardening, for measuring, detects nothing. */
static void expect_violation(const char *id, void (*fun)(void *), void *p)
{
    if (getenv("BULKHEAD_TEST_HARDENING_OFF") != NULL)
        return;
    int fds[2];
    ck_assert_int_eq(pipe(fds), 0);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        dup2(fds[1], 2);
        close(fds[0]);
        close(fds[1]);
        fun(p);
        _exit(0);
    }
    close(fds[1]);
    char text[4096];
    size_t length = 0;
    ssize_t n;
    while ((n = read(fds[0], text + length, sizeof text - 1 - length)) > 0)
        length += (size_t)n;
    close(fds[0]);
    text[length] = '\0';
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    char start[64];
    snprintf(start, sizeof start, "bulkhead: ERROR: %s: ", id);
    ck_assert_msg(strncmp(text, start, strlen(start)) == 0, "expected \"%s\", got \"%s\"", start, text);
    ck_assert_msg(strstr(text + strlen(start), "ERROR") == NULL && text[length - 1] == '\n', "not one report: \"%s\"", text);
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "status %#x", (unsigned)status);
}

static void call_free(void *p)
{
    free(p);
}

/* ------------------------------------------------------------------- tests */

static const char *const family[] = {
    "malloc", "calloc", "realloc", "reallocarray", "free", "free_sized", "free_aligned_sized", "cfree",
    "posix_memalign", "aligned_alloc", "memalign", "valloc", "pvalloc", "malloc_usable_size", "malloc_trim",
    "malloc_info", "malloc_stats", "mallopt",
#ifdef __GLIBC__
    "mallinfo", "mallinfo2", "__libc_malloc", "__libc_calloc", "__libc_realloc", "__libc_free", "__libc_cfree",
    "__libc_memalign", "__libc_valloc", "__libc_pvalloc", "__posix_memalign",
#endif
};

START_TEST(every_name_leads_to_one_object)
{
    Dl_info ours;
    ck_assert_int_ne(dladdr(find("bh_malloc"), &ours), 0);
    for (size_t i = 0; i < sizeof family / sizeof *family; i++) {
        Dl_info where;
        ck_assert_int_ne(dladdr(find(family[i]), &where), 0);
        ck_assert_msg(where.dli_fbase == ours.dli_fbase, "%s is in %s", family[i], where.dli_fname);
    }
}
END_TEST

static void *by_posix_memalign(size_t size)
{
    void *p = NULL;
    return posix_memalign(&p, 64, size) == 0 ? p : NULL;
}

static void *by_posix_memalign_2(size_t size)
{
    int (*fun)(void **, size_t, size_t) = (int (*)(void **, size_t, size_t))find("__posix_memalign");
    void *p = NULL;
    return fun(&p, 4096, size) == 0 ? p : NULL;
}

static void *by_calloc(size_t size)
{
    return calloc(1, size);
}

static void *by_realloc(size_t size)
{
    return realloc(NULL, size);
}

static void *by_reallocarray(size_t size)
{
    return reallocarray(NULL, size, 1);
}

static void *by_aligned_alloc(size_t size)
{
    return aligned_alloc(256, size);
}

static void *by_memalign(size_t size)
{
    return memalign(128, size);
}

static void *by_libc_calloc(size_t size)
{
    return ((allocate_array_t *)find("__libc_calloc"))(size, 1);
}

static void *by_libc_realloc(size_t size)
{
    return ((resize_t *)find("__libc_realloc"))(NULL, size);
}

static void *by_libc_memalign(size_t size)
{
    return ((allocate_array_t *)find("__libc_memalign"))(512, size);
}

static void by_realloc_0(void *p)
{
    ck_assert_ptr_null(realloc(p, zero));
}

static void by_realloc_and_free(void *p)
{
    p = realloc(p, 300);
    ck_assert_ptr_nonnull(p);
    free(p);
}

START_TEST(any_block_goes_to_any_free)
{
    allocate_t *const allocate[] = {
        malloc,       by_calloc,         by_realloc,      by_reallocarray,       by_aligned_alloc,
        by_memalign,  by_posix_memalign, valloc,          pvalloc,
#ifdef __GLIBC__
        (allocate_t *)find("__libc_malloc"), by_libc_calloc, by_libc_realloc, by_libc_memalign,
        (allocate_t *)find("__libc_valloc"), (allocate_t *)find("__libc_pvalloc"), by_posix_memalign_2,
#endif
    };
    release_t *const release[] = {
        free, (release_t *)find("cfree"), by_realloc_0, by_realloc_and_free,
#ifdef __GLIBC__
        (release_t *)find("__libc_free"), (release_t *)find("__libc_cfree"),
#endif
    };
    static const size_t sizes[] = {0, 1, 8, 9, 100, 1024, 5000, 70000, 200000, 3000000};
    for (size_t a = 0; a < sizeof allocate / sizeof *allocate; a++) {
        for (size_t r = 0; r < sizeof release / sizeof *release; r++) {
            for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
                void *p = allocate[a](sizes[s]);
                ck_assert_ptr_nonnull(p);
                use(p, sizes[s]);
                release[r](p);
            }
        }
    }
}
END_TEST

START_TEST(zero_size_is_unique)
{
    void *p[8] = {malloc(zero), calloc(zero, 8), calloc(8, zero), realloc(NULL, zero), aligned_alloc(64, zero),
                  memalign(64, zero), valloc(zero), NULL};
    ck_assert_int_eq(posix_memalign(&p[7], 64, zero), 0);
    for (int i = 0; i < 8; i++) {
        ck_assert_ptr_nonnull(p[i]);
        for (int j = 0; j < i; j++)
            ck_assert_ptr_ne(p[i], p[j]);
    }
    for (int i = 0; i < 8; i++)
        free(p[i]);
}
END_TEST

START_TEST(impossible_sizes_are_enomem)
{
    const size_t sizes[] = {too_large, largest, largest - 15, largest - 4096, largest / 2 + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i];
        void *kept = malloc(100);
        memset(kept, 7, 100);
        void *result;
#define REFUSES(call)                                                                                                  \
    do {                                                                                                               \
        errno = 0;                                                                                                     \
        result = (call);                                                                                               \
        ck_assert_msg(result == NULL, #call " gave a block for size %zx", n);                                          \
        ck_assert_msg(errno == ENOMEM, #call " set errno %d for size %zx", errno, n);                                  \
    } while (0)
        REFUSES(malloc(n));
        REFUSES(calloc(1, n));
        REFUSES(calloc(n, 1));
        REFUSES(calloc(n / 2 + 1, 4));
        REFUSES(realloc(NULL, n));
        REFUSES(realloc(kept, n));
        REFUSES(reallocarray(NULL, n, 1));
        REFUSES(reallocarray(kept, n, 1));
        REFUSES(reallocarray(kept, n / 2 + 1, 4));
        REFUSES(aligned_alloc(64, n));
        REFUSES(memalign(64, n));
        REFUSES(valloc(n));
        REFUSES(pvalloc(n));
#undef REFUSES
        errno = 77;
        void *out = &out;
        ck_assert_int_eq(posix_memalign(&out, 64, n), ENOMEM);
        ck_assert_int_eq(errno, 77);
        ck_assert_ptr_eq(out, &out);
        ck_assert_uint_eq(differing(opaque(kept), 7, 100), 0);
        free(kept);
    }
}
END_TEST

START_TEST(product_that_overflows_to_a_small_one)
{
    volatile size_t half = (size_t)1 << 33;
    errno = 0;
    ck_assert_ptr_null(calloc(half, half));
    ck_assert_int_eq(errno, ENOMEM);
    void *p = malloc(10);
    errno = 0;
    ck_assert_ptr_null(reallocarray(p, half, half));
    ck_assert_int_eq(errno, ENOMEM);
    free(opaque(p));
}
END_TEST

START_TEST(calloc_is_zero_after_dirty_frees)
{
    static const size_t sizes[] = {1, 8, 16, 100, 1000, 4096, 9000, 40000, 131072, 131073, 1000000};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        enum { BLOCKS = 40 };
        unsigned char *blocks[BLOCKS];
        for (int i = 0; i < BLOCKS; i++) {
            blocks[i] = malloc(sizes[s]);
            ck_assert_ptr_nonnull(blocks[i]);
            memset(blocks[i], 0xff, malloc_usable_size(blocks[i]));
            blocks[i] = opaque(blocks[i]);
        }
        for (int i = 0; i < BLOCKS; i++)
            free(blocks[i]);
        for (int i = 0; i < BLOCKS; i++) {
            blocks[i] = opaque(calloc(sizes[s], 1));
            ck_assert_uint_eq(differing(blocks[i], 0, sizes[s]), 0);
        }
        for (int i = 0; i < BLOCKS; i++)
            free(blocks[i]);
    }
}
END_TEST

static size_t pattern_errors(const unsigned char *p, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < size; i++)
        n += p[i] != i % 251;
    return n;
}

START_TEST(realloc_keeps_contents)
{
    size_t size = 1;
    unsigned char *p = malloc(size);
    p[0] = 0;
    while (size < 4000000) {
        size_t next = size + size / 3 + 1;
        p = realloc(p, next);
        ck_assert_ptr_nonnull(p);
        ck_assert_uint_eq(pattern_errors(p, size), 0);
        for (size_t i = size; i < next; i++)
            p[i] = (unsigned char)(i % 251);
        size = next;
    }
    while (size > 1) {
        size /= 2;
        p = realloc(p, size);
        ck_assert_ptr_nonnull(p);
        ck_assert_uint_eq(pattern_errors(p, size), 0);
    }
    free(p);
}
END_TEST

START_TEST(realloc_to_zero_frees)
{
    void *p = malloc(100);
    ck_assert_ptr_null(realloc(p, zero));
    expect_violation("double-free", call_free, opaque(p));
    p = malloc(100);
    ck_assert_ptr_null(reallocarray(p, zero, 5));
    expect_violation("double-free", call_free, opaque(p));
}
END_TEST

START_TEST(bad_alignments)
{
    static const size_t bad[] = {0, 3, 12, 48, 100, SIZE_MAX, SIZE_MAX / 2};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        volatile size_t alignment = bad[i];
        errno = 0;
        ck_assert_ptr_null(aligned_alloc(alignment, 64));
        ck_assert_int_eq(errno, EINVAL);
        void *out = &out;
        errno = 77;
        ck_assert_int_eq(posix_memalign(&out, alignment, 64), EINVAL);
        ck_assert_int_eq(errno, 77);
        ck_assert_ptr_eq(out, &out);
    }
    /* Powers of two, but no multiples of a pointer's size. */
    for (size_t alignment = 1; alignment < sizeof(void *); alignment *= 2) {
        void *out = &out;
        ck_assert_int_eq(posix_memalign(&out, alignment, 64), EINVAL);
        ck_assert_ptr_eq(out, &out);
    }
}
END_TEST

START_TEST(alignments_are_kept)
{
    static const size_t sizes[] = {0, 1, 8, 24, 100, 1000, 4097, 100000};
    for (size_t alignment = 1; alignment <= (size_t)16 << 20; alignment *= 2) {
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            void *p = aligned_alloc(alignment, sizes[s]); /* no multiple of it: accepted */
            void *q = memalign(alignment, sizes[s]);
            void *r = NULL;
            if (alignment >= sizeof(void *))
                ck_assert_int_eq(posix_memalign(&r, alignment, sizes[s]), 0);
            ck_assert(p != NULL && q != NULL);
            ck_assert(is_aligned(p, alignment) && is_aligned(q, alignment) && is_aligned(r, alignment));
            use(p, sizes[s]);
            use(q, sizes[s]);
            free(p);
            free(q);
            free(r);
        }
    }
    for (size_t size = 0; size < 3000; size++) {
        void *p = malloc(size);
        ck_assert(is_aligned(p, size <= 8 ? 8 : 16));
        free(p);
    }
}
END_TEST

START_TEST(memalign_rounds_alignments_up)
{
    static const struct {
        size_t asked, given;
    } cases[] = {{0, 8}, {1, 8}, {3, 8}, {9, 16}, {24, 32}, {33, 64}, {100, 128}, {4097, 8192}, {65537, 131072}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int n = 0; n < 20; n++) {
            volatile size_t asked = cases[i].asked;
            void *p = memalign(asked, 20);
            ck_assert_ptr_nonnull(p);
            ck_assert_msg(is_aligned(p, cases[i].given), "memalign(%zu) gave %p", cases[i].asked, p);
        }
    }
    volatile size_t alignment = SIZE_MAX / 2 + 2;
    errno = 0;
    ck_assert_ptr_null(memalign(alignment, 8));
    ck_assert_int_eq(errno, EINVAL);
    alignment = SIZE_MAX / 2 + 1; /* a power of two that no address space has */
    errno = 0;
    ck_assert_ptr_null(memalign(alignment, 8));
    ck_assert_int_eq(errno, ENOMEM);
    alignment = SIZE_MAX / 2; /* rounds up to the same */
    errno = 0;
    ck_assert_ptr_null(memalign(alignment, 8));
    ck_assert_int_eq(errno, ENOMEM);
}
END_TEST

START_TEST(valloc_and_pvalloc)
{
    static const size_t sizes[] = {0, 1, 100, 4095, 4096, 4097, 65536, 65537, 1000000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *p = valloc(sizes[i]);
        ck_assert_ptr_nonnull(p);
        ck_assert(is_aligned(p, os_page));
        use(p, sizes[i]);
        free(p);
        p = pvalloc(sizes[i]);
        ck_assert_ptr_nonnull(p);
        ck_assert(is_aligned(p, os_page));
        size_t whole = sizes[i] == 0 ? os_page : (sizes[i] + os_page - 1) / os_page * os_page;
        ck_assert_uint_ge(malloc_usable_size(p), whole);
        use(p, whole);
        free(p);
    }
}
END_TEST

START_TEST(usable_size_is_stable_and_writable)
{
    ck_assert_uint_eq(malloc_usable_size(NULL), 0);
    for (size_t size = 0; size < 300000; size += 1 + size / 7) {
        void *p = malloc(size);
        size_t usable = malloc_usable_size(p);
        ck_assert_uint_ge(usable, size);
        use(p, usable);
        ck_assert_uint_eq(malloc_usable_size(p), usable);
        free(p);
    }
}
END_TEST

START_TEST(free_keeps_errno)
{
    static const size_t sizes[] = {0, 1, 100, 5000, 100000, 300000, 50000000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *p = malloc(sizes[i]);
        ck_assert_ptr_nonnull(p);
        errno = 4711;
        free(p);
        ck_assert_int_eq(errno, 4711);
    }
    free(NULL);
    ck_assert_int_eq(errno, 4711);
}
END_TEST

typedef void free_sized_t(void *, size_t);
typedef void free_aligned_sized_t(void *, size_t, size_t);

static void free_with_wrong_size(void *p)
{
    ((free_sized_t *)find("free_sized"))(p, 5000);
}

static void free_aligned_with_wrong_size(void *p)
{
    ((free_aligned_sized_t *)find("free_aligned_sized"))(p, 64, 5000);
}

START_TEST(sized_frees)
{
    free_sized_t *by_size = (free_sized_t *)find("free_sized");
    free_aligned_sized_t *by_alignment = (free_aligned_sized_t *)find("free_aligned_sized");
    by_size(NULL, 0);
    by_size(NULL, 10);
    by_alignment(NULL, 64, 10);
    for (size_t size = 0; size < 2000000; size += 1 + size / 11) {
        by_size(malloc(size), size);
        by_size(calloc(1, size), size);
        by_size(realloc(malloc(17), size != 0 ? size : 1), size != 0 ? size : 1);
        for (size_t alignment = 8; alignment <= 65536; alignment *= 8)
            by_alignment(aligned_alloc(alignment, size), alignment, size);
    }
    void *p = malloc(100);
    expect_violation("size-mismatch", free_with_wrong_size, p);
    free(p);
    p = aligned_alloc(64, 100);
    expect_violation("size-mismatch", free_aligned_with_wrong_size, p);
    free(p);
}
END_TEST

static void call_cfree(void *p)
{
    ((release_t *)find("cfree"))(p);
}

static void call_libc_free(void *p)
{
    ((release_t *)find("__libc_free"))(p);
}

static void call_realloc(void *p)
{
    free(realloc(p, 10));
}

static void call_usable_size(void *p)
{
    printf("%zu", malloc_usable_size(p));
}

START_TEST(violations_through_every_name)
{
    char *p = malloc(100);
    expect_violation("invalid-free", call_free, opaque(p + 16));
    expect_violation("invalid-free", call_cfree, opaque(p + 1));
    expect_violation("invalid-free", call_libc_free, opaque(p + 8));
    expect_violation("invalid-realloc", call_realloc, opaque(p + 16));
    expect_violation("invalid-query", call_usable_size, opaque(p + 16));
    free(p);
    p = opaque(p);
    expect_violation("double-free", call_free, p);
    expect_violation("double-free", call_cfree, p);
    expect_violation("double-free", call_libc_free, p);
    expect_violation("realloc-after-free", call_realloc, p);
    expect_violation("query-after-free", call_usable_size, p);
    int local;
    expect_violation("foreign-free", call_free, opaque(&local));
}
END_TEST

/* Blocks that libc allocates are the program's to free. */
START_TEST(libc_allocates_here)
{
    char *text = strdup("some text");
    ck_assert_uint_ge(malloc_usable_size(text), 10);
    free(text);
    ck_assert_int_eq(asprintf(&text, "%d%s", 5, "x"), 2);
    ck_assert_uint_ge(malloc_usable_size(text), 3);
    free(text);
    size_t size;
    char *buffer = NULL;
    FILE *stream = open_memstream(&buffer, &size);
    for (int i = 0; i < 10000; i++)
        fprintf(stream, "%d,", i);
    fclose(stream);
    ck_assert_uint_ge(malloc_usable_size(buffer), size);
    free(buffer);
    buffer = realpath("/", NULL);
    ck_assert_str_eq(buffer, "/");
    free(buffer);
    DIR *directory = opendir("/");
    ck_assert_ptr_nonnull(directory);
    while (readdir(directory) != NULL)
        ;
    closedir(directory);
    setenv("BULKHEAD_TEST_VARIABLE", "1", 1);
    unsetenv("BULKHEAD_TEST_VARIABLE");
}
END_TEST

static void *thread_main(void *arg)
{
    void *p = malloc((size_t)(uintptr_t)arg);
    memset(opaque(p), 1, (size_t)(uintptr_t)arg);
    return p;
}

START_TEST(block_of_a_thread_that_ended)
{
    for (uintptr_t size = 1; size < 400000; size = size * 3 + 1) {
        pthread_t thread;
        ck_assert_int_eq(pthread_create(&thread, NULL, thread_main, (void *)size), 0);
        void *p;
        ck_assert_int_eq(pthread_join(thread, &p), 0);
        ck_assert_uint_ge(malloc_usable_size(p), size);
        p = realloc(p, size + 1);
        ck_assert_ptr_nonnull(p);
        free(p);
    }
}
END_TEST

START_TEST(child_of_fork_frees_and_allocates)
{
    void *p = malloc(1000);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        free(p);
        p = malloc(1000);
        _exit(p != NULL ? 0 : 1);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    free(p);
}
END_TEST

START_TEST(mallopt_knows_the_parameters_of_glibc)
{
    for (int parameter = -8; parameter <= 4; parameter++) {
        if (parameter != 0)
            ck_assert_int_eq(mallopt(parameter, 1), 1);
    }
    ck_assert_int_eq(mallopt(0, 1), 0);
    ck_assert_int_eq(mallopt(-1000, 1), 0);
    ck_assert_int_eq(mallopt(1000, 1), 0);
    void *p = malloc(100);
    expect_violation("invalid-free", call_free, opaque((char *)p + 16)); /* M_CHECK_ACTION is no way out */
    free(p);
}
END_TEST

int main(void)
{
    os_page = (size_t)sysconf(_SC_PAGESIZE);
    TCase *tests = tcase_create("override");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, every_name_leads_to_one_object);
    tcase_add_test(tests, any_block_goes_to_any_free);
    tcase_add_test(tests, zero_size_is_unique);
    tcase_add_test(tests, impossible_sizes_are_enomem);
    tcase_add_test(tests, product_that_overflows_to_a_small_one);
    tcase_add_test(tests, calloc_is_zero_after_dirty_frees);
    tcase_add_test(tests, realloc_keeps_contents);
    tcase_add_test(tests, realloc_to_zero_frees);
    tcase_add_test(tests, bad_alignments);
    tcase_add_test(tests, alignments_are_kept);
    tcase_add_test(tests, memalign_rounds_alignments_up);
    tcase_add_test(tests, valloc_and_pvalloc);
    tcase_add_test(tests, usable_size_is_stable_and_writable);
    tcase_add_test(tests, free_keeps_errno);
    tcase_add_test(tests, sized_frees);
    tcase_add_test(tests, violations_through_every_name);
    tcase_add_test(tests, libc_allocates_here);
    tcase_add_test(tests, block_of_a_thread_that_ended);
    tcase_add_test(tests, child_of_fork_frees_and_allocates);
    tcase_add_test(tests, mallopt_knows_the_parameters_of_glibc);
    Suite *suite = suite_create("override");
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
