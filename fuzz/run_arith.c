/* Sizes, counts and alignments near the limits of arithmetic. */
#include "run.h"

#include <errno.h>

#define ADDRESS(p) ((void *)(p)) /* NOLINT: blocks are numbers here */

#define COPY_MOST ((size_t)64 << 20) /* bytes of a block that is still resized, which may copy them */

/* The product, or SIZE_MAX. Not by the allocator's own arithmetic. */
static size_t product(size_t x, size_t y)
{
    unsigned __int128 wide = (unsigned __int128)x * y;
    return wide > SIZE_MAX ? SIZE_MAX : (size_t)wide;
}

static void judge(unsigned place, void *p, wanted_t w)
{
    if (p == NULL) {
        model_refused(&w, errno);
        model_quarantine_emptied();
        return;
    }
    if (w.size > PTRDIFF_MAX)
        finding("%zu bytes were handed out at %#zx", w.size, (uintptr_t)p);
    model_taken(place, (uintptr_t)p, &w);
    model.block[place].orphan = run.late[w.context];
}

static void judge_resized(unsigned place, void *p, wanted_t w, bool zero)
{
    block_t before = model.block[place];
    if (p != NULL && w.size > PTRDIFF_MAX)
        finding("%zu bytes were handed out at %#zx", w.size, (uintptr_t)p);
    if (p == NULL && w.size == 0) {
        model_given(&model.block[place], window_context());
        return;
    }
    if (p == NULL) {
        model_refused(&w, errno);
        model_quarantine_emptied();
        return;
    }
    model_resized(place, (uintptr_t)p, &before, &w, zero);
    if ((uintptr_t)p != before.p)
        model.block[place].orphan = run.late[w.context];
}

static void resize(const step_t *s, block_t *b, size_t x, size_t y, wanted_t w)
{
    unsigned place = s->a % PLACES;
    model_check_contents(b);
    void *p = ADDRESS(b->p);
    size_t all = product(x, y);
    switch (s->a >> 6) {
    case 0:
        w.size = x;
        SAY("p[%u] = bh_realloc(p[%u], %zuu);", place, place, x);
        judge_resized(place, bh_realloc(p, x), w, false);
        break;
    case 1:
        w.size = all;
        SAY("p[%u] = bh_reallocarray(p[%u], %zuu, %zuu);", place, place, x, y);
        judge_resized(place, bh_reallocarray(p, x, y), w, false);
        break;
    case 2:
        w.size = all;
        SAY("p[%u] = bh_recalloc(p[%u], %zuu, %zuu);", place, place, x, y);
        judge_resized(place, bh_recalloc(p, x, y), w, true);
        break;
    default:
        w.size = x;
        SAY("bh_expand(p[%u], %zuu);", place, x);
        p = bh_expand(p, x);
        if (p != NULL)
            judge_resized(place, p, w, false);
        else if (errno != ENOMEM)
            finding("bh_expand fails with errno %d", errno);
    }
}

static bool power_of_two(size_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

static void aligned(const step_t *s, size_t x, size_t y, wanted_t w)
{
    unsigned place = s->a % PLACES;
    void *p = NULL;
    w.size = y;
    w.alignment = x;
    w.exact = false;
    if ((s->c & 1) != 0) {
        SAY("bh_posix_memalign((void **)&p[%u], %zuu, %zuu);", place, x, y);
        int saved = errno = 77, r = bh_posix_memalign(&p, x, y);
        if (errno != saved)
            finding("bh_posix_memalign changed errno");
        bool valid = power_of_two(x) && x % sizeof(void *) == 0;
        if (!valid && (r != EINVAL || p != NULL))
            finding("bh_posix_memalign of alignment %zu gave %d", x, r);
        if (!valid)
            return;
        errno = r;
    } else {
        SAY("p[%u] = bh_aligned_alloc(%zuu, %zuu);", place, x, y);
        p = bh_aligned_alloc(x, y);
        if (!power_of_two(x) && (p != NULL || errno != EINVAL))
            finding("bh_aligned_alloc of alignment %zu gave %#zx, errno %d", x, (uintptr_t)p, errno);
        if (!power_of_two(x))
            return;
    }
    judge(place, p, w);
}

void run_wild(const step_t *s)
{
    unsigned place = s->a % PLACES;
    size_t x = program_wild(s->b), y = program_wild(s->c);
    wanted_t w = {.context = (uint8_t)window_context(), .heap = NO_HEAP, .exact = true};
    block_t *b = run_live(place);
    errno = 0;
    if (b != NULL && b->usable > COPY_MOST) {
        run_free(place);
    } else if (b != NULL) {
        resize(s, b, x, y, w);
        return;
    }
    errno = 0;
    switch (s->a >> 6) {
    case 0:
        w.size = x;
        SAY("p[%u] = bh_malloc(%zuu);", place, x);
        judge(place, bh_malloc(x), w);
        break;
    case 1:
        w.size = product(x, y);
        w.zero = true;
        SAY("p[%u] = bh_calloc(%zuu, %zuu);", place, x, y);
        judge(place, bh_calloc(x, y), w);
        break;
    case 2: aligned(s, x, y, w); break;
    default:
        w.size = x;
        w.alignment = (size_t)1 << (s->c & 31);
        w.offset = program_wild((uint8_t)(s->c * 7));
        w.exact = false;
        SAY("p[%u] = bh_aligned_alloc_at(%zuu, %zuu, %zuu);", place, w.alignment, x, w.offset);
        judge(place, bh_aligned_alloc_at(w.alignment, x, w.offset), w);
        break;
    }
}
