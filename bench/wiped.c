/* mimalloc with some of what profile hardened promises: a block is cleared when it is
 * freed, and looked at when it is used again; one word behind it tells at its free whether
 * somebody ran over it. No quarantine, no map, no random order, no slack, no neighbours, no
 * check for a second free. No floor for such an allocator: it asks for each size by calls
 * that one of its own would save; bench/README.md, "What clearing and looking cost".
 *
 * Preloaded, it brings mimalloc with it. The last word of a block is its mark: LIVE or FREED,
 * with its address; anything else was never used. mimalloc has the first word of a free
 * block. C++'s operators go through malloc and free as well. */
#include <errno.h>
#include <malloc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MARK sizeof(uint64_t)
#define LIVE 0x9e3779b97f4a7c15u
#define FREED 0xc2b2ae3d27d4eb4fu

void *mi_malloc(size_t size);
void *mi_memalign(size_t align, size_t size);
void mi_free(void *p);
size_t mi_usable_size(const void *p);

static _Noreturn void stop(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        _exit(1);
    abort();
}

static uint64_t *mark_of(char *p, size_t usable)
{
    return (uint64_t *)(void *)(p + usable - MARK);
}

static uint64_t key(const uint64_t *mark, uint64_t of)
{
    return (uint64_t)(uintptr_t)mark ^ of;
}

/* Whether all but the first word and the mark are zero. mimalloc may have used the memory for
 * blocks of another size meanwhile, so this only measures what a look costs. */
static bool is_clear(const char *p, size_t usable)
{
    const uint64_t *words = (const uint64_t *)(const void *)p;
    uint64_t any = 0;
    for (size_t i = 1; i < usable / sizeof *words - 1; i++)
        any |= words[i];
    return any == 0;
}

/* `used`: it was used before, and reads zero but for its first word. */
static char *take(char *p, bool *used)
{
    if (p == NULL)
        return NULL;
    size_t usable = mi_usable_size(p);
    uint64_t *mark = mark_of(p, usable);
    *used = *mark == key(mark, FREED) && is_clear(p, usable);
    *mark = key(mark, LIVE);
    return p;
}

static size_t padded(size_t size)
{
    return size < MARK ? 2 * MARK : size > PTRDIFF_MAX ? size : size + MARK;
}

void *malloc(size_t size)
{
    bool used;
    char *p = take(mi_malloc(padded(size)), &used);
    if (p == NULL)
        errno = ENOMEM;
    else if (used)
        memset(p, 0, MARK);
    return p;
}

void free(void *p)
{
    if (p == NULL)
        return;
    size_t usable = mi_usable_size(p);
    uint64_t *mark = mark_of(p, usable);
    if (*mark != key(mark, LIVE))
        stop("wiped: overflow\n");
    memset(p, 0, usable - MARK);
    *mark = key(mark, FREED);
    mi_free(p);
}

size_t malloc_usable_size(void *p)
{
    return p == NULL ? 0 : mi_usable_size(p) - MARK;
}

void *calloc(size_t n, size_t size)
{
    size_t bytes;
    bool used = false;
    char *p = __builtin_mul_overflow(n, size, &bytes) ? NULL : take(mi_malloc(padded(bytes)), &used);
    if (p == NULL)
        errno = ENOMEM;
    else
        memset(p, 0, used ? MARK : malloc_usable_size(p));
    return p;
}

void *realloc(void *p, size_t size)
{
    size_t has = malloc_usable_size(p);
    if (p != NULL && size <= has && size >= has / 2)
        return p;
    void *q = malloc(size);
    if (q != NULL && p != NULL)
        memcpy(q, p, has < size ? has : size);
    if (q != NULL)
        free(p);
    return q;
}

void *memalign(size_t align, size_t size)
{
    bool used;
    char *p = take(mi_memalign(align, padded(size)), &used);
    if (p == NULL)
        errno = ENOMEM;
    else if (used)
        memset(p, 0, MARK);
    return p;
}

void *aligned_alloc(size_t align, size_t size)
{
    return memalign(align, size);
}

int posix_memalign(void **out, size_t align, size_t size)
{
    int before = errno;
    *out = memalign(align, size);
    errno = before;
    return *out == NULL ? ENOMEM : 0;
}

/* operator new, new[], delete, delete[], with and without a size. */
void *_Znwm(size_t size);
void *_Znam(size_t size);
void _ZdlPv(void *p);
void _ZdaPv(void *p);
void _ZdlPvm(void *p, size_t size);
void _ZdaPvm(void *p, size_t size);

void *_Znwm(size_t size)
{
    void *p = malloc(size);
    if (p == NULL)
        abort();
    return p;
}

void *_Znam(size_t size)
{
    return _Znwm(size);
}

void _ZdlPv(void *p)
{
    free(p);
}

void _ZdaPv(void *p)
{
    free(p);
}

void _ZdlPvm(void *p, size_t size)
{
    (void)size;
    free(p);
}

void _ZdaPvm(void *p, size_t size)
{
    (void)size;
    free(p);
}
