/* An allocator with one fault, for showing that each limit can be exceeded:
 * glibc's own, with FAULTY in the environment naming what is wrong with it.
 * can_fail.sh preloads it and demands that the test notices. */
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

#define OS_PAGE ((size_t)4096)

static atomic_size_t count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local bool seen;
static _Thread_local unsigned rounds;
static pthread_key_t last_rites;
static void *before_start; /* a block of that time, when there is no environment yet */
static bool constructed;

/* Not cached: the first call may come before any constructor. */
static bool faulty(const char *name)
{
    const char *fault = getenv("FAULTY");
    return fault != NULL && strcmp(fault, name) == 0;
}

/* Memory that nobody gets and that is resident. */
static void waste(size_t bytes)
{
    char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; p != MAP_FAILED && i < bytes; i += OS_PAGE)
        p[i] = 1;
}

static void on_thread_exit(void *arg)
{
    if (++rounds > 2)
        abort(); /* as one whose thread state is gone by then */
    pthread_setspecific(last_rites, arg);
}

__attribute__((constructor)) static void start(void)
{
    constructed = true;
    if (before_start != NULL && faulty("forgets-early"))
        memset(before_start, 0xee, malloc_usable_size(before_start));
    if (faulty("start-up-memory"))
        waste(2 << 20);
    if (faulty("thread-exit"))
        pthread_key_create(&last_rites, on_thread_exit);
}

static void before_malloc(size_t size)
{
    size_t n = atomic_fetch_add(&count, 1);
    if (faulty("mapping-per-page") && n % 60 == 0 && n < 60 * 20000)
        mmap(NULL, OS_PAGE, n % 120 == 0 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (faulty("block-overhead") && size <= (128 << 10))
        waste(40 << 10);
    if (faulty("thread-memory") && !seen)
        waste(300 << 10);
    if (faulty("thread-exit") && !seen)
        pthread_setspecific(last_rites, &count);
    seen = true;
    if (faulty("slower-and-slower"))
        for (volatile size_t i = 0; i < n / 8; i++)
            continue;
}

/* A huge block, of which glibc's own might be refused, with control data in
 * proportion to its size. One at a time. */
static char *huge;
static size_t huge_size;

static void *huge_malloc(size_t size)
{
    waste(size >> 20);
    huge = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    huge_size = size;
    return huge == MAP_FAILED ? NULL : huge;
}

void *malloc(size_t size)
{
    before_malloc(size);
    if (size >> 40 != 0 && faulty("cost-by-size"))
        return huge_malloc(size);
    if (faulty("lock-lost-in-fork")) {
        pthread_mutex_lock(&lock);
        void *p = __libc_malloc(size);
        pthread_mutex_unlock(&lock);
        return p;
    }
    if (faulty("half-the-memory") && size <= PTRDIFF_MAX / 4)
        size *= 3;
    void *p = __libc_malloc(size);
    if (!constructed)
        before_start = p;
    if (p == NULL && faulty("errno"))
        errno = EAGAIN;
    return p;
}

void *calloc(size_t n, size_t size)
{
    before_malloc(size);
    char *p = __libc_calloc(n, size);
    if (p != NULL && n * size > 5000 && faulty("dirty"))
        p[n * size / 2] = 1;
    return p;
}

void *realloc(void *p, size_t size)
{
    return __libc_realloc(p, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return __libc_memalign(alignment, size);
}

void free(void *p)
{
    if (faulty("leak"))
        return;
    if (p != NULL && p == huge) {
        munmap(huge, huge_size);
        return;
    }
    if (faulty("lock-lost-in-fork")) {
        pthread_mutex_lock(&lock);
        __libc_free(p);
        pthread_mutex_unlock(&lock);
        return;
    }
    if (faulty("fatal-madvise") && p != NULL && malloc_usable_size(p) >= 65536) {
        void *page = (void *)(((uintptr_t)p + OS_PAGE) & ~(OS_PAGE - 1));
        if (madvise(page, OS_PAGE, MADV_DONTNEED) != 0)
            abort();
    }
    __libc_free(p);
}

/* The bh_ names, for the programs that are linked to the library: heaps that
 * keep nothing apart and a callback that never comes. */
typedef void callback_fun(bool, unsigned long long, void *);
void *bh_heap_malloc(void *heap, size_t size);
void *bh_heap_zalloc(void *heap, size_t size);
void *bh_heap_calloc(void *heap, size_t n, size_t size);
void *bh_heap_realloc(void *heap, void *p, size_t size);
void *bh_heap_aligned_alloc(void *heap, size_t alignment, size_t size);
void *bh_heap_new(void);
void bh_heap_delete(void *heap);
void bh_heap_destroy(void *heap);
void bh_collect(bool force);
bool bh_register_deferred_free(callback_fun *fun, void *arg);

void *bh_heap_malloc(void *heap, size_t size)
{
    (void)heap;
    return malloc(size);
}

void *bh_heap_zalloc(void *heap, size_t size)
{
    (void)heap;
    return calloc(1, size);
}

void *bh_heap_calloc(void *heap, size_t n, size_t size)
{
    (void)heap;
    return calloc(n, size);
}

void *bh_heap_realloc(void *heap, void *p, size_t size)
{
    (void)heap;
    return realloc(p, size);
}

void *bh_heap_aligned_alloc(void *heap, size_t alignment, size_t size)
{
    (void)heap;
    return aligned_alloc(alignment, size);
}

void *bh_heap_new(void)
{
    return &count;
}

void bh_heap_delete(void *heap)
{
    (void)heap;
}

void bh_heap_destroy(void *heap)
{
    (void)heap;
}

void bh_collect(bool force)
{
    (void)force;
}

bool bh_register_deferred_free(callback_fun *fun, void *arg)
{
    (void)fun;
    (void)arg;
    return true;
}
