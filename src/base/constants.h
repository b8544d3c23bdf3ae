/* Numbers that decide the layout. Everything here is fixed at build time. */
#ifndef BH_BASE_CONSTANTS_H
#define BH_BASE_CONSTANTS_H

#include "base/compiler.h"

/* Hardening mechanisms, 1 = on. Each is a constant in a plain `if`, so that
 * both sides always compile; only measuring builds set one to 0. */
#ifndef BH_HARDEN_MAP
#define BH_HARDEN_MAP 1 /* allocation map tests at malloc, free, realloc */
#endif
#ifndef BH_HARDEN_LISTS
#define BH_HARDEN_LISTS 1 /* keyed encoding of free lists */
#endif
#ifndef BH_HARDEN_RANDOM
#define BH_HARDEN_RANDOM 1 /* random order of blocks, delayed reuse */
#endif
#ifndef BH_HARDEN_CLEAR
#define BH_HARDEN_CLEAR 1 /* a new page carries nothing of what its memory held before */
#endif
#ifndef BH_HARDEN_GUARDS
#define BH_HARDEN_GUARDS 1 /* inaccessible OS page after every page */
#endif
#ifndef BH_HARDEN_CANARIES
#define BH_HARDEN_CANARIES 1 /* keyed pattern behind the requested size; profile hardened */
#endif
#ifndef BH_HARDEN_WIPE
#define BH_HARDEN_WIPE 1 /* zero on free, verified before reuse; profile hardened */
#endif
#ifndef BH_HARDEN_QUARANTINE
#define BH_HARDEN_QUARANTINE 1 /* delayed reuse in random order; profile hardened */
#endif
#ifndef BH_HARDEN_SETTINGS
#define BH_HARDEN_SETTINGS 1 /* process-wide settings read-only, sealed where the kernel can */
#endif
#ifndef BH_HARDEN_SAMPLED
#define BH_HARDEN_SAMPLED 1 /* sampled guarded allocations, where options ask for them */
#endif
#ifndef BH_HARDEN_LARGE
#define BH_HARDEN_LARGE 1 /* freed large blocks trap, their addresses wait */
#endif

/* Largest OS page this build serves. It runs on every kernel whose page size
 * divides it; a kernel with larger pages is refused at start-up. */
#ifndef BH_OS_PAGE_SHIFT
#if defined(__x86_64__)
#define BH_OS_PAGE_SHIFT 12
#else
#define BH_OS_PAGE_SHIFT 16
#endif
#endif
#define BH_OS_PAGE_SIZE ((size_t)1 << BH_OS_PAGE_SHIFT)

/* Slot: 64 KiB, or 16 OS pages where those are larger (design.md section 3). */
#define BH_SLOT_OS_PAGES_SHIFT 4
#define BH_SLOT_SHIFT (BH_OS_PAGE_SHIFT + BH_SLOT_OS_PAGES_SHIFT < 16 ? 16 : BH_OS_PAGE_SHIFT + BH_SLOT_OS_PAGES_SHIFT)
#define BH_SLOT_SIZE ((size_t)1 << BH_SLOT_SHIFT)
#define BH_SLOT_OS_PAGES ((unsigned)1 << BH_SLOT_OS_PAGES_SHIFT)

/* Index of a block in its page. */
#if BH_OS_PAGE_SHIFT <= 15
typedef uint16_t bhi_index_t;
#define BH_INDEX_BITS 16
#else
typedef uint32_t bhi_index_t;
#define BH_INDEX_BITS 20
#endif
_Static_assert(BH_SLOT_SIZE / 8 - 1 <= (bhi_index_t)-1, "that of the smallest blocks too");

/* Segment: 64 slots, so that a set of slots is one machine word. */
#define BH_SEGMENT_SLOTS_SHIFT 6
#define BH_SEGMENT_SLOTS ((unsigned)1 << BH_SEGMENT_SLOTS_SHIFT)
#define BH_SEGMENT_SHIFT (BH_SLOT_SHIFT + BH_SEGMENT_SLOTS_SHIFT)
#define BH_SEGMENT_SIZE ((size_t)1 << BH_SEGMENT_SHIFT)

#define BH_PAGE_DESC_SHIFT 7 /* 128 B for 64 KiB: 0.2 % */

/* Sizes up to this go through the direct table of a heap. */
#define BH_SMALL_MAX ((size_t)1024)
#define BH_DIRECT_ENTRIES (BH_SMALL_MAX / 8 + 1)

/* Largest size class; above it a block has a span of its own. */
#define BH_CLASS_MAX_SIZE ((size_t)128 * 1024)

/* Freed blocks come back when that many bytes of their class, and at most that many
 * blocks, have gathered in their page; see core/refill.c. */
#define BH_REUSE_BYTES ((size_t)8 * 1024)
#define BH_REUSE_BLOCKS 64u

/* Most that a guarded block can hold (larger ones have guards of their own), and most frames of a stack that is kept. */
#define BH_GUARDED_MOST BH_CLASS_MAX_SIZE
#define BH_STACK_DEPTH 32u

/* Bytes that fill blocks where option `fill` is on. As a pointer each is one that no
 * address space has; the choice is that of FreeBSD's allocator. */
#define BH_FILL_FRESH 0xa5 /* handed out and not written to yet */
#define BH_FILL_FREED 0x5a

/* Multi-block spans in slots: up to 8 KiB, 32 KiB, 128 KiB blocks. A 128 KiB
 * block needs more than one block per span to be worth a descriptor; 8 slots
 * hold three and the guard. */
#define BH_SPAN_SLOTS_SMALL 1u
#define BH_SPAN_SLOTS_MEDIUM 4u
#define BH_SPAN_SLOTS_LARGE 8u

/* Reservations for blocks: the first is large where address space is free;
 * further ones are only made when it is used up or was limited. */
#define BH_ARENA_MAX 64u
#if BH_SANITIZED
#define BH_ARENA_SIZE_FIRST ((size_t)64 << 30)
#else
#define BH_ARENA_SIZE_FIRST ((size_t)8 << 40)
#endif
#define BH_ARENA_SIZE_LEAST ((size_t)64 << 20)

#define BH_CACHE_LINE 64

#endif
