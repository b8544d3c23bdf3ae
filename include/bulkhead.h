/* Bulkhead: a hardened general-purpose memory allocator for Linux.
 *
 * Every function of this header has C linkage, may be called from any thread
 * unless its text says otherwise, and keeps to three rules:
 *
 *  - Out of memory is never fatal: NULL, with errno set to ENOMEM.
 *  - Misuse is always fatal: a pointer that is not the start of a live block
 *    ends the process with SIGABRT after one line
 *    "bulkhead: ERROR: <violation-id>: ..." on standard error
 *    (only `foreign=report|ignore` changes this, and only for pointers that no
 *    part of Bulkhead's memory contains).
 *  - Sizes and alignments are in bytes.
 *
 * Alignment: a block of at most 8 bytes is aligned to 8, every other block to
 * 16 or more. A block of n bytes has between n and n + n/8 usable bytes
 * (n + 15 at most for n up to 128; whole OS pages above 128 KiB).
 *
 * Signal handlers: no function here is async-signal-safe, as malloc is not.
 */
#ifndef BULKHEAD_H
#define BULKHEAD_H

#include <stdbool.h>
#include <stddef.h>

#define BH_VERSION_MAJOR 0
#define BH_VERSION_MINOR 1
#define BH_VERSION_PATCH 0

#if defined(__GNUC__) || defined(__clang__)
#define BH_EXPORT __attribute__((visibility("default")))
#define BH_ATTR_MALLOC __attribute__((malloc))
#define BH_ATTR_SIZE(n) __attribute__((alloc_size(n)))
#define BH_ATTR_SIZE2(n, m) __attribute__((alloc_size(n, m)))
#define BH_ATTR_ALIGN(n) __attribute__((alloc_align(n)))
#define BH_ATTR_NODISCARD __attribute__((warn_unused_result))
#else
#define BH_EXPORT
#define BH_ATTR_MALLOC
#define BH_ATTR_SIZE(n)
#define BH_ATTR_SIZE2(n, m)
#define BH_ATTR_ALIGN(n)
#define BH_ATTR_NODISCARD
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Version as major * 10000 + minor * 100 + patch, of the library that runs. */
BH_EXPORT int bh_version(void);

/* ------------------------------------------------------------------ blocks */

/* A block of at least `size` bytes, contents unspecified. `size` 0 gives a
 * unique non-NULL pointer. Errors: NULL and ENOMEM when memory is short or
 * `size` exceeds PTRDIFF_MAX. */
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC BH_ATTR_SIZE(1) void *bh_malloc(size_t size);

/* bh_malloc with every byte zero. */
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC BH_ATTR_SIZE(1) void *bh_zalloc(size_t size);

/* A zeroed array of `count` elements of `size` bytes. Errors: as bh_malloc,
 * also when the product overflows. */
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC BH_ATTR_SIZE2(1, 2) void *bh_calloc(size_t count, size_t size);

/* Resizes block `p` to `size` bytes and returns where it is now; the first
 * min(old, new) bytes are kept. `p` NULL: bh_malloc(size). `size` 0 with `p`
 * not NULL: frees `p` and returns NULL, as glibc does. Errors: NULL and
 * ENOMEM, `p` stays valid. */
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_SIZE(2) void *bh_realloc(void *p, size_t size);

/* bh_realloc(p, count * size); NULL and ENOMEM, `p` untouched, when the
 * product overflows. */
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_SIZE2(2, 3) void *bh_reallocarray(void *p, size_t count, size_t size);

/* Frees block `p`, of any heap, from any thread. NULL does nothing. Keeps errno. */
BH_EXPORT void bh_free(void *p);

/* bh_free that checks `size` against the block (C23 free_sized): `size` must be
 * the size that the block was last allocated or resized with. A size that the
 * block's size class cannot have served is the violation "size-mismatch". */
BH_EXPORT void bh_free_sized(void *p, size_t size);

/* The same for blocks of bh_aligned_alloc (C23 free_aligned_sized). An alignment
 * that the block's address does not have is the same violation. */
BH_EXPORT void bh_free_aligned_sized(void *p, size_t alignment, size_t size);

/* A block aligned to `alignment`, a power of two; `size` need not be a multiple
 * of it. Errors: NULL and EINVAL when `alignment` is not a power of two, NULL
 * and ENOMEM when memory is short. */
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC BH_ATTR_ALIGN(1) BH_ATTR_SIZE(2) void *bh_aligned_alloc(size_t alignment, size_t size);

/* bh_aligned_alloc with every byte zero. */
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC BH_ATTR_ALIGN(1) BH_ATTR_SIZE(2) void *bh_aligned_zalloc(size_t alignment, size_t size);

/* POSIX form: stores the block in *out and returns 0, or returns EINVAL
 * (`alignment` not a power of two multiple of sizeof(void *)) or ENOMEM and
 * leaves *out and errno as they were. */
BH_EXPORT BH_ATTR_NODISCARD int bh_posix_memalign(void **out, size_t alignment, size_t size);

/* Bytes that may be read and written from `p` on; at least the size asked for,
 * the same for the life of the block. 0 for NULL. */
BH_EXPORT size_t bh_usable_size(const void *p);

/* ------------------------------------------------------------------- heaps */

/* A first-class heap: its blocks never share a page with another heap's.
 * A bh_heap_t pointer is an opaque checked handle, not an address. */
typedef struct bh_heap bh_heap_t;

/* A new heap, owned by the calling thread: only that thread may allocate in it,
 * delete it or destroy it (checked: violation "heap-misuse"), every thread may
 * free its blocks. When the thread ends, its heaps are deleted. Errors: NULL
 * and ENOMEM. */
BH_EXPORT BH_ATTR_NODISCARD bh_heap_t *bh_heap_new(void);

/* Ends `heap`; its blocks stay valid until freed, and their pages take no new
 * blocks. The handle is invalid afterwards. NULL does nothing. */
BH_EXPORT void bh_heap_delete(bh_heap_t *heap);

/* Ends `heap` and all its blocks at once. No thread may use or free one of them
 * afterwards or meanwhile. NULL does nothing. */
BH_EXPORT void bh_heap_destroy(bh_heap_t *heap);

/* The functions of the same name above, with blocks from `heap`.
 * bh_heap_realloc takes a block of any heap; if it moves, it moves to `heap`
 * (bh_realloc moves a block of any heap to the calling thread's default heap). */
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC BH_ATTR_SIZE(2) void *bh_heap_malloc(bh_heap_t *heap, size_t size);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC BH_ATTR_SIZE(2) void *bh_heap_zalloc(bh_heap_t *heap, size_t size);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC BH_ATTR_SIZE2(2, 3) void *bh_heap_calloc(bh_heap_t *heap, size_t count, size_t size);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_SIZE(3) void *bh_heap_realloc(bh_heap_t *heap, void *p, size_t size);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_SIZE2(3, 4) void *bh_heap_reallocarray(bh_heap_t *heap, void *p, size_t count, size_t size);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC BH_ATTR_ALIGN(2) BH_ATTR_SIZE(3) void *bh_heap_aligned_alloc(bh_heap_t *heap, size_t alignment, size_t size);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC BH_ATTR_ALIGN(2) BH_ATTR_SIZE(3) void *bh_heap_aligned_zalloc(bh_heap_t *heap, size_t alignment, size_t size);

/* ------------------------------------------------------------- maintenance */

/* Takes back what other threads freed into the calling thread's heaps and
 * releases empty pages; with `force` also returns all memory that no page uses
 * to the operating system at once, whatever the purge delay. */
BH_EXPORT void bh_collect(bool force);

/* Called on the generic path, at most one page's capacity of allocations of a
 * size class apart, and by bh_collect (then `force` is its argument).
 * `heartbeat` grows by at least one from call to call in a thread. */
typedef void bh_deferred_free_fun(bool force, unsigned long long heartbeat, void *arg);

/* Registers `fun` for the whole process, in place of the one before; NULL takes
 * it away. `fun` may allocate and free; it is not called again from within
 * itself. */
BH_EXPORT void bh_register_deferred_free(bh_deferred_free_fun *fun, void *arg);

#ifdef __cplusplus
}
#endif

#endif /* BULKHEAD_H */
