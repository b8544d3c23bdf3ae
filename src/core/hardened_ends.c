/* Profile hardened: the ends of blocks where it is not malloc's own that sets or free's
 * own that checks them, and realloc, which moves them; see hardened.h. */
#include "core/hardened.h"

#include "meta/size_class.h"

#include <string.h>

/* Bytes before a single block in its first OS page: none but of blocks at an offset, where
 * no guard comes right before them. */
static size_t head_bytes(const bhi_page_t *page)
{
    return page->block_size == 0 ? page->start & (BH_OS_PAGE_SIZE - 1) : 0;
}

/* Keyed, never zero, another one at each place. */
static uint8_t head_byte(const bhi_page_t *page, uintptr_t at)
{
    uint64_t mixed = (bhi_hard_canaries(page) ^ at) * 0x9e3779b97f4a7c15u; /* golden ratio: Knuth, multiplicative hashing */
    return (uint8_t)(mixed >> 56) | 1;
}

static void write_head(const bhi_page_t *page)
{
    for (size_t i = head_bytes(page); BH_HARDEN_CANARIES && i > 0; i--)
        *(volatile uint8_t *)(page->start - i) = head_byte(page, page->start - i); /* NOLINT: block memory is addressed by number */
}

size_t bhi_hard_head_damage(const bhi_page_t *page)
{
    for (size_t i = head_bytes(page); BH_HARDEN_CANARIES && i > 0; i--) {
        if (*(volatile uint8_t *)(page->start - i) != head_byte(page, page->start - i)) /* NOLINT: the same */
            return i;
    }
    return 0;
}

void bhi_hard_underrun(const bhi_page_t *page, size_t before)
{
    atomic_thread_fence(memory_order_acquire);
    bhi_violation(bhi_map_is_live(page->map, 0) ? BHI_UNDERFLOW : BHI_DOUBLE_FREE, page->start - before);
}

void bhi_hard_check_end(const bhi_page_t *page, uint32_t index)
{
    size_t before = bhi_hard_head_damage(page);
    if (bh_unlikely(before != 0))
        bhi_hard_underrun(page, before);
    size_t at = bhi_hard_damage(page, index);
    if (bh_unlikely(at != BH_CANARY_INTACT))
        bhi_hard_damaged(page, index, at);
}

size_t bhi_hard_pad_large(size_t size)
{
    size_t slack = (0 - size) & (BH_OS_PAGE_SIZE - 1);
    return slack != 0 && slack < BH_CANARY_LEAST ? BH_CANARY_LEAST : 0;
}

static void write_end(const bhi_page_t *page, uint32_t index, size_t size)
{
    size_t bytes = bhi_page_bytes(page);
    bhi_hard_set_requested(page, index, size);
    if (bytes != size)
        bhi_canary_write(bhi_page_block(page, index), size, bytes, bhi_hard_canaries(page), index);
}

void bhi_hard_end_large(bhi_page_t *page, size_t size)
{
    write_end(page, 0, size);
    write_head(page);
}

void bhi_hard_check_held(const bhi_page_t *page, uint32_t index)
{
    size_t bytes = page->block_size, size = bhi_hard_size(page, bytes, index);
    size_t at = bhi_canary_check(bhi_page_block(page, index), size, bytes, *bhi_hard_key(page), index);
    if (bh_unlikely(at != BH_CANARY_INTACT))
        bhi_hard_damaged(page, index, at);
}

bool bhi_hard_resize(bhi_page_t *page, uint32_t index, size_t size)
{
    size_t had = bhi_hard_requested(page, index), bytes = bhi_page_bytes(page);
    bool single = page->block_size == 0;
    if (size > (single ? PTRDIFF_MAX : bytes)) /* any number at all: what is added below must not wrap */
        return false;
    size_t wants = size + (single ? bhi_hard_pad_large(page->start + size) : BH_CANARY_LEAST);
    if (wants < bytes / 2 && (single || wants > BH_CLASS_MAX_SIZE || bhi_class_size(bhi_class_of(wants)) != bytes))
        return false;
    bhi_hard_check_end(page, index);
    if (wants > bytes && (!single || !bhi_page_grow(page, wants)))
        return false;
    size_t shown = bhi_min(size, bytes); /* what lies behind is zero */
    if (shown > had)
        memset((void *)(bhi_page_block(page, index) + had), 0, shown - had); /* NOLINT */
    if (size == 0)
        page->memory = BHI_MEMORY_ANY; /* or the block would pass for a fresh one, once it is freed */
    write_end(page, index, size);
    return true;
}
