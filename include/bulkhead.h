/* Bulkhead: a hardened general-purpose memory allocator for Linux.
 *
 * Every function of this header has C linkage, may be called from any thread
 * unless its text says otherwise, and keeps to three rules:
 *
 *  - Out of memory is never fatal: NULL, with errno set to ENOMEM.
 *  - Misuse is always fatal: a pointer that is not the start of a live block
 *    ends the process with SIGABRT after a report
 *    on standard error, whose first line is "bulkhead: ERROR: <violation-id>: ..."
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
 * unique non-NULL pointer that can neither be read nor written. Errors: NULL and ENOMEM when memory is short or
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

/* bh_realloc(p, count * size) for a block whose bytes are zero beyond what the
 * program asked for: of bh_zalloc, bh_calloc, bh_aligned_zalloc and these two
 * functions. What it grows by is zero. For any other block that holds only for
 * bytes beyond its former bh_usable_size. `p` NULL: bh_calloc. Bytes of the block
 * beyond the new size become zero. Errors: as bh_reallocarray. */
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_SIZE2(2, 3) void *bh_recalloc(void *p, size_t count, size_t size);

/* bh_recalloc(p, 1, size). */
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_SIZE(2) void *bh_rezalloc(void *p, size_t size);

/* bh_realloc that frees `p` when it fails (BSD). */
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_SIZE(2) void *bh_reallocf(void *p, size_t size);

/* Resizes `p` where it is, or not at all: `p`, or NULL with ENOMEM when
 * bh_realloc would have to move it (up or down) and for `p` NULL. `p` stays
 * valid either way. */
BH_EXPORT BH_ATTR_NODISCARD void *bh_expand(void *p, size_t size);

/* bh_malloc(count * size); NULL and ENOMEM also when the product overflows. */
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC BH_ATTR_SIZE2(1, 2) void *bh_mallocn(size_t count, size_t size);

/* bh_realloc that keeps the alignment: the result is aligned to `alignment`, a
 * power of two. Errors: NULL, `p` untouched, with EINVAL or ENOMEM. */
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_ALIGN(2) BH_ATTR_SIZE(3) void *bh_aligned_realloc(void *p, size_t alignment, size_t size);

/* Forms where result + `offset` is aligned to `alignment`, and the result is the
 * start of the block. Unless `offset` is a multiple of `alignment`, the result
 * itself may have any alignment, the alignment may be at most 64 KiB (16 OS
 * pages where those are larger; beyond: NULL and ENOMEM), and the block takes
 * whole OS pages of memory and 64 KiB of address space: for few blocks, not for
 * many small ones. Such blocks have no sized free: use bh_free. */
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC BH_ATTR_SIZE(2) void *bh_aligned_alloc_at(size_t alignment, size_t size, size_t offset);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC BH_ATTR_SIZE(2) void *bh_aligned_zalloc_at(size_t alignment, size_t size, size_t offset);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_SIZE(3) void *bh_aligned_realloc_at(void *p, size_t alignment, size_t size, size_t offset);

/* The usable size that bh_malloc(size) would give; `size` itself where that
 * would fail for being too large. */
BH_EXPORT size_t bh_good_size(size_t size);

/* A copy of the string `s`, of at most `n` of its bytes; both end with a zero
 * byte. NULL for NULL. Errors: NULL and ENOMEM. */
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC char *bh_strdup(const char *s);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC char *bh_strndup(const char *s, size_t n);

/* POSIX realpath: with `resolved` NULL the result is a block of Bulkhead. A path
 * longer than PATH_MAX gives NULL and ENAMETOOLONG. Errors: NULL and errno. */
BH_EXPORT BH_ATTR_NODISCARD char *bh_realpath(const char *path, char *resolved);

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

/* The functions of the same name above, with blocks from `heap`. Those that
 * resize take a block of any heap; if it moves, it moves to `heap` (without
 * bh_heap_, to the calling thread's default heap). */
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC BH_ATTR_SIZE(2) void *bh_heap_malloc(bh_heap_t *heap, size_t size);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC BH_ATTR_SIZE(2) void *bh_heap_zalloc(bh_heap_t *heap, size_t size);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC BH_ATTR_SIZE2(2, 3) void *bh_heap_calloc(bh_heap_t *heap, size_t count, size_t size);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_SIZE(3) void *bh_heap_realloc(bh_heap_t *heap, void *p, size_t size);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_SIZE2(3, 4) void *bh_heap_reallocarray(bh_heap_t *heap, void *p, size_t count, size_t size);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC BH_ATTR_ALIGN(2) BH_ATTR_SIZE(3) void *bh_heap_aligned_alloc(bh_heap_t *heap, size_t alignment, size_t size);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC BH_ATTR_ALIGN(2) BH_ATTR_SIZE(3) void *bh_heap_aligned_zalloc(bh_heap_t *heap, size_t alignment, size_t size);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_SIZE2(3, 4) void *bh_heap_recalloc(bh_heap_t *heap, void *p, size_t count, size_t size);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_SIZE(3) void *bh_heap_rezalloc(bh_heap_t *heap, void *p, size_t size);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_SIZE(3) void *bh_heap_reallocf(bh_heap_t *heap, void *p, size_t size);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC BH_ATTR_SIZE2(2, 3) void *bh_heap_mallocn(bh_heap_t *heap, size_t count, size_t size);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_ALIGN(3) BH_ATTR_SIZE(4) void *bh_heap_aligned_realloc(bh_heap_t *heap, void *p, size_t alignment, size_t size);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC BH_ATTR_SIZE(3) void *bh_heap_aligned_alloc_at(bh_heap_t *heap, size_t alignment, size_t size, size_t offset);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC BH_ATTR_SIZE(3) void *bh_heap_aligned_zalloc_at(bh_heap_t *heap, size_t alignment, size_t size, size_t offset);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_SIZE(4) void *bh_heap_aligned_realloc_at(bh_heap_t *heap, void *p, size_t alignment, size_t size, size_t offset);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC char *bh_heap_strdup(bh_heap_t *heap, const char *s);
BH_EXPORT BH_ATTR_NODISCARD BH_ATTR_MALLOC char *bh_heap_strndup(bh_heap_t *heap, const char *s, size_t n);
BH_EXPORT BH_ATTR_NODISCARD char *bh_heap_realpath(bh_heap_t *heap, const char *path, char *resolved);

/* -------------------------------------------------------------- inspection */

/* For the functions of this section and of the next, `heap` NULL is the calling
 * thread's default heap. Another thread's heap is the violation "heap-misuse". */

/* Whether `p`, any address, lies in a live block of `heap`. A block that another
 * thread has freed is not live. */
BH_EXPORT bool bh_heap_contains_block(bh_heap_t *heap, const void *p);

/* The same for all heaps that the calling thread owns. */
BH_EXPORT bool bh_check_owned(const void *p);

/* Whether `p`, any address, lies in the address space that Bulkhead reserved for
 * blocks; there need be no block there. Any thread. */
BH_EXPORT bool bh_is_in_heap_region(const void *p);

/* A stretch of a heap's memory with blocks of one size, side by side. */
typedef struct bh_heap_area {
    void *blocks;      /* start of the first block */
    size_t reserved;   /* bytes that blocks may take, from there on */
    size_t committed;  /* bytes of them that blocks took so far */
    size_t used;       /* live blocks (a number, not bytes) */
    size_t block_size; /* bytes, bh_usable_size of each of them; 0: they are of zero size */
} bh_heap_area_t;

/* Called for each area with `block` NULL, then for each of its live blocks.
 * False ends the visit. It must not allocate, free, resize or collect in `heap`;
 * in other heaps it may. */
typedef bool bh_block_visit_fun(const bh_heap_t *heap, const bh_heap_area_t *area, void *block, size_t block_size, void *arg);

/* Visits the areas of `heap`, and with `visit_blocks` each live block exactly
 * once, in no particular order. Blocks that another thread frees meanwhile may
 * or may not be among them. False when the visitor ended it. */
BH_EXPORT bool bh_heap_visit_blocks(bh_heap_t *heap, bool visit_blocks, bh_block_visit_fun *visitor, void *arg);

/* ----------------------------------------------------------------- reports */

/* What is known of a violation. Words are constant texts; NULL, 0 and, where it
 * says so, -1 mean that something is not known. Contents of blocks, lists and
 * keys are in no report. */
#define BH_REPORT_FRAMES 32

typedef struct bh_report {
    size_t struct_size;     /* sizeof(bh_report_t) of the library; fields are added at the end only */
    const char *id;         /* stable, such as "double-free" */
    const char *text;       /* one sentence */
    const void *address;    /* what was misused, or where the corruption showed */
    int thread;             /* the kernel's id of the thread that found it */
    bool fatal;             /* the process ends after the report */
    bool culprit;           /* that thread's stack is the culprit's, not just the finder's */
    const char *place;      /* what `address` points to: "block", "ended page" (blocks that are gone),
                               "guarded block" (one with OS pages of its own, and what traps around it),
                               "unused" (of Bulkhead, without blocks), "control data", "stack" (that
                               thread's), "small integer" (or NULL), "mapping", "unmapped" */
    const char *damage;     /* which part of the page's control data contradicts itself */
    const void *block;      /* the block that contains `address` or is nearest to it */
    size_t block_size;      /* of its size class */
    size_t usable_size;
    size_t requested_size;  /* 0: not recorded */
    ptrdiff_t offset;       /* address - block: before it if negative, after it from usable_size on */
    const char *state;      /* "live", "held" (freed by another thread, not taken back yet), "free",
                               "freed twice at once", "being freed", "never handed out" */
    const char *left, *right; /* states of the blocks before and after it, or "none" */
    const void *page;       /* its first block */
    size_t page_blocks;     /* blocks that fit the page */
    size_t block_index;     /* 0 .. page_blocks - 1 */
    int size_class;         /* -1: a block with a page of its own */
    int slot;               /* 0 .. 63, of the segment; -1 */
    int heap;               /* number of the heap, -1 */
    const char *heap_kind;  /* "thread", "user", "orphan" (its thread has ended), "deleted" */
    const char *owner;      /* "this thread", "another thread", "none", "not in this process" (before a fork) */
    const void *mapping_start, *mapping_end; /* place "mapping" and "stack" */
    char mapping_access[8]; /* as in /proc/self/maps */
    char mapping_name[128]; /* the same, cut */
    const char *access;     /* "read", "write" or, where the machine does not say, "access": of a fault; NULL */
    int alloc_thread, free_thread; /* of a guarded block, the kernel's ids; 0: not freed, or not known */
    /* Stacks, the innermost call first; each address lies in its call. */
    unsigned alloc_depth, free_depth, here_depth;
    const void *alloc_stack[BH_REPORT_FRAMES]; /* where the block was allocated */
    const void *free_stack[BH_REPORT_FRAMES];  /* and freed */
    const void *here_stack[BH_REPORT_FRAMES];  /* what the thread did: a fault, a second free */
    const char *allocated_by; /* "malloc", "aligned_alloc", "new", "new[]", where kinds are kept */
    const char *released_by;  /* of id "kind-mismatch": "free", "delete", "delete[]", "realloc" */
} bh_report_t;

/* Called after a report was written, by the thread that found the violation, in
 * whatever state that thread is: it may hold locks, and Bulkhead's control data
 * may be damaged. So do what a signal handler may do, neither allocate nor free,
 * and return. A fault or a violation in it ends the process. */
typedef void bh_report_fun(const bh_report_t *report, void *arg);

/* Sets the function, NULL: none. The pointer lies in memory that is read-only but
 * for the moment of this call; where a sandbox refuses mprotect, the call changes
 * nothing. Any thread. */
BH_EXPORT void bh_register_report(bh_report_fun *fun, void *arg);

/* For programs that install a handler of SIGSEGV of their own after start-up, with
 * SA_SIGINFO: call it first, with what the handler got. Reports an access to a
 * guarded block that is free, or to the guards around one, and returns true if the
 * access will succeed when the handler returns (option guarded_recover). False: not
 * such an access, or it is reported; do what you do with any fault. Takes no lock,
 * allocates nothing; async-signal-safe. */
BH_EXPORT bool bh_handle_segv(int signal, void *siginfo, void *ucontext);

/* Looks for leaks: live blocks that no word of the program's data, stacks, registers or
 * other blocks points to. Reports them in groups by kind and allocation stack, the
 * largest first, to where reports go, and returns how many there are. Where blocks have
 * no records (option leaks, on in profile debug, or stacks_of) or memory cannot be
 * looked through: (size_t)-1. Other threads are stopped meanwhile, by a signal that
 * nobody uses: system calls of theirs that cannot be restarted end with EINTR. Any
 * thread; while another one is at it, (size_t)-1. */
BH_EXPORT size_t bh_report_leaks(void);

/* First line of the report that ends the process, for whoever has its core file;
 * empty until then. */
#define BH_ABORT_MSG_SIZE 256
extern BH_EXPORT char bh_abort_msg[BH_ABORT_MSG_SIZE];

/* ----------------------------------------------------------------- options */

/* Options by the names that the environment uses, such as "purge_delay", in any
 * case of letters; any thread.
 *
 * bh_option_get writes the value in force as text, cut to `size` bytes with the
 * zero byte at its end, and returns its full length without that byte. Errors:
 * -1 and EINVAL when there is no such option. */
BH_EXPORT int bh_option_get(const char *name, char *buffer, size_t size);

/* The value of an option that is a number. Errors: -1 and EINVAL when there is no
 * such option or its value is a word. */
BH_EXPORT long bh_option_get_long(const char *name);

/* Changes an option of the running process: "purge_delay" only. All others are
 * fixed at start-up, on a page that nobody can write to any more. 0, or -1 with
 * EINVAL (no such option or value) or EPERM (fixed; after bh_seal; or the kernel
 * refuses to make the settings writable). */
BH_EXPORT int bh_option_set(const char *name, const char *value);

/* Ends all changes to options and callbacks for the life of the process and of
 * its children (not across execve). What is set stays in force. True when it is
 * so, also from an earlier call; false when the kernel refuses. The option seal=1
 * does the same at start-up. */
BH_EXPORT bool bh_seal(void);

/* A program's own options, which it may define: "key=value:key=value", at most
 * 4095 bytes. They override /etc/bulkhead.conf and are overridden by the
 * environment. In C:
 *
 *     const char bh_program_options[] = "profile=secure:seal=1";
 *
 * It is read in the first allocation, whoever makes it: so it must be an array
 * of characters in the program itself, not in a library, and without this header
 * with C linkage and default visibility. A program that is not linked with
 * Bulkhead but preloads it must export the name (-rdynamic). */
BH_EXPORT extern const char bh_program_options[];

/* -------------------------------------------------------------- statistics */

/* Figures are gathered when asked for; nothing is counted on the paths of malloc
 * and free. While other threads run, each is right for some moment of the call.
 * A block that another thread freed counts until its owner takes it back. */

#define BH_STATS_VERSION 1

/* Set `struct_size` to sizeof(bh_stats_t) before the call; a library that knows
 * fewer fields sets the rest to zero. New fields are added at the end only. */
typedef struct bh_stats {
    size_t struct_size;
    size_t version;          /* BH_STATS_VERSION of the library */
    size_t reserved_bytes;   /* address space reserved for blocks */
    size_t open_bytes;       /* of it in segments in use */
    size_t used_bytes;       /* in live blocks, up to their usable sizes */
    size_t free_slot_bytes;  /* of the open bytes: not part of any page */
    size_t control_bytes;    /* control data, apart from all of the above */
    size_t segment_count;    /* segments in use, 4 MiB each on most machines */
    size_t page_count;       /* pages in use, those of large blocks included */
    size_t large_count;      /* live blocks with a page of their own */
    size_t large_bytes;
    size_t huge_count;       /* of these: with segments of their own */
    size_t huge_bytes;
    size_t heap_count;       /* heaps of bh_heap_new that were not ended */
    size_t thread_count;     /* threads that have a default heap */
    size_t orphan_count;     /* heaps of ended threads that still have blocks */
    size_t guard_missed;     /* guard pages that could not be placed, ever */
    size_t advice_refused;   /* advisory kernel calls that failed, ever */
    size_t quarantined_bytes; /* address space of freed large blocks that is kept out of use */
    size_t guarded_count;    /* live guarded blocks (option guarded_sample_rate) */
    size_t guarded_bytes;    /* in them, part of used_bytes */
    size_t guarded_refused;  /* allocations chosen to be guarded that found no slot, ever */
} bh_stats_t;

/* True, or false with EINVAL when `out->struct_size` is too small for any version. */
BH_EXPORT bool bh_stats_get(bh_stats_t *out);

typedef struct bh_heap_stats {
    size_t struct_size;
    size_t version;        /* BH_STATS_VERSION of the library */
    size_t page_count;
    size_t page_bytes;     /* address space of these pages, guards included */
    size_t used_count;     /* live blocks */
    size_t used_bytes;     /* in them, up to their usable sizes */
    size_t large_count;    /* live blocks with a page of their own */
    size_t large_bytes;
} bh_heap_stats_t;

/* The same for one heap, after taking back what other threads freed. */
BH_EXPORT bool bh_heap_stats_get(bh_heap_t *heap, bh_heap_stats_t *out);

/* One JSON object with the fields of the structure, on one line, cut to `size`
 * bytes with the zero byte at its end; returns the full length without that byte.
 * Allocates nothing. */
BH_EXPORT size_t bh_stats_json(char *buffer, size_t size);
BH_EXPORT size_t bh_heap_stats_json(bh_heap_t *heap, char *buffer, size_t size);

/* Called with one line of text, a newline and a zero byte at its end. */
typedef void bh_output_fun(const char *line, void *arg);

/* The figures as text, line by line; `out` NULL: to standard error. The option
 * show_stats=1 does the latter at the end of the process. */
BH_EXPORT void bh_stats_print(bh_output_fun *out, void *arg);
BH_EXPORT void bh_heap_stats_print(bh_heap_t *heap, bh_output_fun *out, void *arg);

/* ------------------------------------------------------------- maintenance */

/* Profile hardened: looks at the ends of all live blocks and for writes into free
 * ones, in the calling thread's heaps and those of ended threads, and ends the
 * process with a report when it finds damage. Returns the number of heaps that it
 * left out, those of other threads. Time: a few milliseconds for each 10 MiB. exit
 * does the same for at most two seconds. In profile secure there is nothing to look
 * at: 0. */
BH_EXPORT size_t bh_verify(void);

/* Takes back what other threads freed into the calling thread's heaps and
 * releases empty pages; with `force` also returns all memory that no page uses
 * to the operating system at once, whatever the purge delay. */
BH_EXPORT void bh_collect(bool force);

/* Called on the generic path, at most one page's capacity of allocations of a
 * size class apart, and by bh_collect (then `force` is its argument).
 * `heartbeat` grows by at least one from call to call in a thread. */
typedef void bh_deferred_free_fun(bool force, unsigned long long heartbeat, void *arg);

/* Registers `fun` for the whole process, in place of the one before; NULL takes
 * it away. False, and nothing changed: after bh_seal, where the kernel refuses to
 * make the settings writable, or without memory to start with. `fun` may allocate and free; it is not called again from within
 * itself. <stdlib.h> may tell compilers that malloc calls nothing of the file
 * that calls it (glibc's attribute leaf): static variables of that file which
 * `fun` changes must be atomic or volatile there. */
BH_EXPORT bool bh_register_deferred_free(bh_deferred_free_fun *fun, void *arg);

#ifdef __cplusplus
}
#endif

/* --------------------------------------------------------------------- C++ */

#if defined(__cplusplus) && __cplusplus >= 201103L
extern "C++" { /* also where a program wraps its includes */
#include <cstddef>
#include <cstdlib>
#include <new>
#include <type_traits>

namespace bh {
namespace detail {

/* A block of `size` bytes aligned to `alignment`, of `heap` or, where that is
 * null, of the default heap. Null: no memory. */
inline void *try_obtain(bh_heap_t *heap, std::size_t size, std::size_t alignment) noexcept
{
    if (alignment <= 8 || (alignment <= 16 && size > 8))
        return heap != nullptr ? bh_heap_malloc(heap, size) : bh_malloc(size);
    return heap != nullptr ? bh_heap_aligned_alloc(heap, alignment, size) : bh_aligned_alloc(alignment, size);
}

/* The same; out of memory as operator new: the new-handler, and without one
 * std::bad_alloc (std::abort where there are no exceptions). */
inline void *obtain(bh_heap_t *heap, std::size_t size, std::size_t alignment)
{
    for (;;) {
        void *p = try_obtain(heap, size, alignment);
        if (p != nullptr)
            return p;
        std::new_handler handler = std::get_new_handler();
        if (handler == nullptr) {
#if defined(__cpp_exceptions) || defined(__EXCEPTIONS)
            throw std::bad_alloc();
#else
            std::abort();
#endif
        }
        handler();
    }
}

template <class T> T *obtain_array(bh_heap_t *heap, std::size_t count)
{
    /* No block is this large: the product that overflows fails like it. */
    std::size_t size = count > static_cast<std::size_t>(-1) / sizeof(T) ? static_cast<std::size_t>(-1) : count * sizeof(T);
    return static_cast<T *>(obtain(heap, size, alignof(T)));
}

} /* namespace detail */

/* Allocator for standard containers whose blocks come from the calling thread's
 * default heap, for programs whose operator new is another's. */
template <class T> struct allocator {
    using value_type = T;
    using propagate_on_container_copy_assignment = std::true_type;
    using propagate_on_container_move_assignment = std::true_type;
    using propagate_on_container_swap = std::true_type;
    using is_always_equal = std::true_type;

    allocator() noexcept = default;
    template <class U> allocator(const allocator<U> &) noexcept {}

    T *allocate(std::size_t count) { return detail::obtain_array<T>(nullptr, count); }
    void deallocate(T *p, std::size_t) noexcept { bh_free(p); }
};

template <class T, class U> bool operator==(const allocator<T> &, const allocator<U> &) noexcept { return true; }
template <class T, class U> bool operator!=(const allocator<T> &, const allocator<U> &) noexcept { return false; }

/* The same with blocks from `heap`, which it does not own: the heap's thread has
 * to keep it until no container allocates any more, and only that thread may make
 * one grow. Every thread may free. */
template <class T> struct heap_allocator {
    using value_type = T;
    using propagate_on_container_copy_assignment = std::true_type;
    using propagate_on_container_move_assignment = std::true_type;
    using propagate_on_container_swap = std::true_type;
    using is_always_equal = std::false_type;

    heap_allocator(bh_heap_t *from) noexcept : heap(from) {}
    template <class U> heap_allocator(const heap_allocator<U> &other) noexcept : heap(other.heap) {}

    T *allocate(std::size_t count) { return detail::obtain_array<T>(heap, count); }
    void deallocate(T *p, std::size_t) noexcept { bh_free(p); }

    bh_heap_t *heap;
};

template <class T, class U> bool operator==(const heap_allocator<T> &a, const heap_allocator<U> &b) noexcept { return a.heap == b.heap; }
template <class T, class U> bool operator!=(const heap_allocator<T> &a, const heap_allocator<U> &b) noexcept { return a.heap != b.heap; }

} /* namespace bh */
}
#endif

#endif /* BULKHEAD_H */
