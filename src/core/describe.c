/* Description of addresses; see describe.h. */
#include "core/describe.h"

#include "core/fault.h"
#include "core/hardened.h"
#include "core/page.h"
#include "core/record.h"
#include "core/thread.h"
#include "core/traced.h"
#include "core/zero.h"
#include "meta/size_class.h"
#include "meta/types.h"
#include "os/os.h"

/* The reads race with their owners on purpose: words are copied one by one. */
#if defined(__clang__)
#define UNCHECKED __attribute__((noinline, no_sanitize("address", "thread")))
#else
#define UNCHECKED __attribute__((noinline, no_sanitize_address, no_sanitize_thread))
#endif

/* OS pages are no smaller than this on any machine. */
#define OS_PAGE_LEAST 4096u

/* Copies `size` bytes, a multiple of 8; false when they cannot be read. */
UNCHECKED static bool fetch(void *to, const void *from, size_t size)
{
    uintptr_t at = (uintptr_t)from;
    const volatile uint64_t *in = from;
    uint64_t *out = to;
    if (at % sizeof *in != 0 || at > UINTPTR_MAX - size)
        return false;
    for (size_t i = 0; i < size / sizeof *in; i++) {
        if ((i == 0 || (uintptr_t)&in[i] % OS_PAGE_LEAST == 0) && !bhi_os_readable((uintptr_t)&in[i]))
            return false;
        out[i] = in[i];
    }
    return true;
}

/* What is constant in an arena, checked as far as it can be. */
typedef struct region {
    uintptr_t base, descs, headers;
    size_t size, open;
} region_t;

static bool region_of(uintptr_t p, region_t *out)
{
    const bhi_state_t *state = bhi_state;
    uint32_t count = state != NULL ? atomic_load_explicit(&state->arena_count, memory_order_relaxed) : 0;
    for (unsigned i = 0; i < count && i < BH_ARENA_MAX; i++) {
        const bhi_arena_t *arena = &state->arenas[i];
        uintptr_t head[4];
        _Static_assert(offsetof(bhi_arena_t, base) == 0 && offsetof(bhi_arena_t, headers) == 24, "read as four words");
        if (!fetch(head, arena, sizeof head) || !fetch(&out->open, (const void *)&arena->blocks_open, sizeof out->open))
            return false;
        *out = (region_t){.base = head[0], .size = head[1], .descs = head[2], .headers = head[3], .open = out->open};
        if (i == 0) { /* also on the page that nobody can write to */
            out->base = bhi_process.block_base;
            out->size = bhi_process.block_size;
            out->descs = bhi_process.descs;
        }
        if (p - out->base < out->size)
            return true;
    }
    return false;
}

static bool is_control_data(uintptr_t p)
{
    size_t descs = bhi_process.block_size >> BH_SLOT_SHIFT << BH_PAGE_DESC_SHIFT;
    return p - bhi_process.descs < descs || p - (uintptr_t)bhi_process.state < sizeof(bhi_state_t);
}

/* Whether a huge span contains the segment, and its first one. As bhi_huge_find, with
 * headers that may say anything. */
static bool huge_first(const region_t *g, size_t segment, size_t *first)
{
    const bhi_segment_t *headers = (const bhi_segment_t *)g->headers;
    size_t mark = segment;
    for (size_t power = 1;; power *= 2) {
        bhi_segment_t s;
        mark &= ~(power - 1);
        if (!fetch(&s, &headers[mark], sizeof s))
            return false;
        size_t back = s.kind == BHI_SEGMENT_HUGE_REST && s.run <= mark ? s.run : 0;
        if (back != 0 && !fetch(&s, &headers[mark - back], sizeof s))
            return false;
        *first = mark - back;
        if (s.kind == BHI_SEGMENT_HUGE && segment - *first < s.run)
            return true;
        if (mark == 0)
            return false;
    }
}

/* The offset of the slot with the descriptor of the page whose span may contain
 * offset `off`. */
static bool first_slot(const region_t *g, size_t off, size_t *first)
{
    size_t segment = off >> BH_SEGMENT_SHIFT;
    bhi_segment_t s;
    bhi_page_t desc;
    if (!fetch(&s, (const bhi_segment_t *)g->headers + segment, sizeof s))
        return false;
    if (s.kind != BHI_SEGMENT_SLOTS && huge_first(g, segment, first)) {
        *first <<= BH_SEGMENT_SHIFT;
        return true;
    }
    size_t slot = off >> BH_SLOT_SHIFT;
    if (!fetch(&desc, (const bhi_page_t *)g->descs + slot, sizeof desc))
        return false;
    size_t back = desc.back >> BH_PAGE_DESC_SHIFT;
    *first = (slot - back) << BH_SLOT_SHIFT;
    return back <= slot;
}

/* Bytes from one block to the next, of a copied descriptor; never 0. */
static size_t apart(const bhi_page_t *page)
{
    if (page->block_size != 0)
        return page->block_size;
    return page->single_bytes != 0 ? page->single_bytes : 1;
}

/* NULL when the page's constants agree with each other and with its place. */
static const char *contradiction(const region_t *g, const bhi_page_t *page, size_t first)
{
    size_t span = (size_t)page->span_slots << BH_SLOT_SHIFT;
    if (page->start - (g->base + first) >= BH_SLOT_SIZE)
        return "start";
    if (page->span_slots == 0 || span > g->size - first)
        return "span";
    if (apart(page) > span)
        return "block size";
    if (page->reserved == 0 || page->reserved > span / apart(page))
        return "number of blocks";
    if (page->block_size == 0)
        return page->reserved == 1 ? NULL : "number of blocks";
    bool fits = page->size_class == BHI_CLASS_ZERO ? page->block_size == BHI_ZERO_STEP
                                                   : page->size_class < BHI_CLASSES && bhi_class_size(page->size_class) == page->block_size;
    if (!fits)
        return "size class";
    return bhi_page_capacity(page) <= page->reserved ? NULL : "capacity";
}

static const char freed_twice[] = "freed twice at once";

/* `ended`: the page is gone, what is said of it is of its last days. */
static const char *block_state(const bhi_page_t *page, uint32_t index, bool ended)
{
    uint64_t four; /* blocks of the map */
    if (ended)
        return "free";
    if (index >= bhi_page_capacity(page))
        return "never handed out";
    bool last_word = page->block_size != 0 && index / 64 == (bhi_page_capacity(page) - 1) / 64;
    if (last_word && (page->fresh >> (index & 63) & 1) != 0)
        return "never handed out";
    if (page->state == BHI_PAGE_LARGE && page->used == 0)
        return "free"; /* live and held stay until the page ends */
    if (!fetch(&four, page->map + index / 4 * 4, sizeof four))
        return NULL;
    uint64_t pair = four >> 16 * (index % 4);
    bool live = (pair & 1) != 0, held = (pair & 0xff00) != 0;
    if (!live)
        return held ? freed_twice : "free";
    return held ? "held" : "live";
}

static void describe_block(bh_report_t *r, const bhi_page_t *page, bool ended)
{
    uintptr_t p = (uintptr_t)r->address;
    size_t index = p < page->start ? 0 : (p - page->start) / apart(page);
    if (index >= page->reserved)
        index = page->reserved - 1u;
    uintptr_t block = page->start + index * apart(page);
    r->block = (const void *)block;
    r->block_size = page->block_size != 0 ? page->block_size : page->single_bytes;
    r->usable_size = bhi_page_bytes(page);
    r->offset = (ptrdiff_t)(p - block);
    r->block_index = index;
    bhi_record_describe(r, page, (uint32_t)index);
    r->state = block_state(page, (uint32_t)index, ended);
    if (r->state == freed_twice)
        r->culprit = false; /* found afterwards, by whoever came along */
    r->left = index > 0 ? block_state(page, (uint32_t)index - 1, ended) : "none";
    r->right = index + 1 < page->reserved ? block_state(page, (uint32_t)index + 1, ended) : "none";
}

/* Whether `at` is one of the heap structures, and not what was written over a
 * pointer to one. */
static bool is_heap(const bhi_heap_t *at, uint32_t id)
{
    bhi_heap_t **chunk;
    bhi_heap_t *heap;
    return id < BHI_HEAP_DIR * BHI_HEAP_DIR_CHUNK &&
           fetch(&chunk, &bhi_state->heap_dir[id / BHI_HEAP_DIR_CHUNK], sizeof chunk) && chunk != NULL &&
           fetch(&heap, &chunk[id % BHI_HEAP_DIR_CHUNK], sizeof heap) && heap == at;
}

static const char *owner_of(bhi_owner_t owner)
{
    if (owner == BHI_OWNER_NONE)
        return "none";
    if (owner == BHI_OWNER_GONE)
        return "not in this process";
    return owner == bhi_thread_self() ? "this thread" : "another thread";
}

static void describe_heap(bh_report_t *r, const bhi_heap_t *heap)
{
    static const char *const kinds[] = {
        [BHI_HEAP_UNUSED] = "unused",
        [BHI_HEAP_THREAD] = "thread",
        [BHI_HEAP_USER] = "user",
        [BHI_HEAP_ORPHAN] = "orphan",
        [BHI_HEAP_DELETED] = "deleted",
    };
    struct {
        uint32_t id, generation;
        union {
            uint8_t kind;
            uint64_t whole;
        } k;
    } head;
    _Static_assert(offsetof(bhi_heap_t, id) % 8 == 0 && offsetof(bhi_heap_t, kind) == offsetof(bhi_heap_t, id) + 8, "two words");
    bhi_owner_t owner;
    if ((uintptr_t)heap % _Alignof(bhi_heap_t) != 0 || !fetch(&head, &heap->id, sizeof head) ||
        !fetch(&owner, (const void *)&heap->owner, sizeof owner) || !is_heap(heap, head.id)) {
        r->damage = "heap";
        return;
    }
    r->heap = (int)head.id;
    r->heap_kind = head.k.kind < sizeof kinds / sizeof kinds[0] ? kinds[head.k.kind] : "not known";
    r->owner = owner_of(owner);
}

void bhi_describe(bh_report_t *r)
{
    uintptr_t p = (uintptr_t)r->address;
    r->released_by = bhi_kind_released_by();
    region_t g;
    size_t first;
    bhi_page_t page;
    if (bhi_guarded_contains(p)) {
        bhi_fault_describe(r);
        return;
    }
    if (is_control_data(p)) {
        r->place = "control data";
        return;
    }
    if (!region_of(p, &g))
        return;
    r->place = "unused";
    size_t off = p - g.base;
    if (off >= g.open || !first_slot(&g, off, &first) ||
        !fetch(&page, (const bhi_page_t *)g.descs + (first >> BH_SLOT_SHIFT), sizeof page) || page.start == 0)
        return;
    r->damage = contradiction(&g, &page, first);
    /* A span that is gone or has become shorter leaves its marks in later slots. */
    if (r->damage == NULL && off - first >= (size_t)page.span_slots << BH_SLOT_SHIFT)
        return;
    const bhi_heap_t *heap = atomic_load_explicit(&page.heap, memory_order_relaxed);
    bool ended = heap == NULL || bhi_page_capacity(&page) == 0;
    r->place = ended ? "ended page" : "block";
    r->slot = (int)(first >> BH_SLOT_SHIFT & (BH_SEGMENT_SLOTS - 1));
    r->page = (const void *)(g.base + first);
    if (r->damage == NULL) {
        r->page = (const void *)page.start;
        r->page_blocks = page.reserved;
        r->size_class = page.block_size != 0 ? page.size_class : -1;
        describe_block(r, &page, ended);
    }
    if (!ended)
        describe_heap(r, heap);
}
