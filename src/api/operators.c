/* The C++ operators new and delete, in C under their mangled names, so that a
 * preloaded Bulkhead brings no C++ library into programs that have none.
 *
 * Invariant: a program may replace some operators and keep the others, and
 * [new.delete] says by which calls the kept ones are then defined. Those calls
 * go through the public, weak names. The short cuts past them are taken only
 * while the names lead here: a program with a header of its own before each
 * block would otherwise be accused of a bad free. */
#include "api/cxx.h"
#include "api/kinds.h"
#include "base/compiler.h"
#include "bulkhead.h"

_Static_assert(sizeof(size_t) == sizeof(unsigned long), "the mangled names below say unsigned long");

/* std::nothrow_t and std::align_val_t, as the calling convention sees them. */
typedef const void *nothrow_t;
typedef size_t align_val_t;

#define BH_OPERATOR BH_EXPORT __attribute__((weak))

BH_OPERATOR void *_Znwm(size_t size);
BH_OPERATOR void *_Znam(size_t size);
BH_OPERATOR void *_ZnwmRKSt9nothrow_t(size_t size, nothrow_t tag);
BH_OPERATOR void *_ZnamRKSt9nothrow_t(size_t size, nothrow_t tag);
BH_OPERATOR void *_ZnwmSt11align_val_t(size_t size, align_val_t alignment);
BH_OPERATOR void *_ZnamSt11align_val_t(size_t size, align_val_t alignment);
BH_OPERATOR void *_ZnwmSt11align_val_tRKSt9nothrow_t(size_t size, align_val_t alignment, nothrow_t tag);
BH_OPERATOR void *_ZnamSt11align_val_tRKSt9nothrow_t(size_t size, align_val_t alignment, nothrow_t tag);
BH_OPERATOR void _ZdlPv(void *p);
BH_OPERATOR void _ZdaPv(void *p);
BH_OPERATOR void _ZdlPvm(void *p, size_t size);
BH_OPERATOR void _ZdaPvm(void *p, size_t size);
BH_OPERATOR void _ZdlPvRKSt9nothrow_t(void *p, nothrow_t tag);
BH_OPERATOR void _ZdaPvRKSt9nothrow_t(void *p, nothrow_t tag);
BH_OPERATOR void _ZdlPvSt11align_val_t(void *p, align_val_t alignment);
BH_OPERATOR void _ZdaPvSt11align_val_t(void *p, align_val_t alignment);
BH_OPERATOR void _ZdlPvmSt11align_val_t(void *p, size_t size, align_val_t alignment);
BH_OPERATOR void _ZdaPvmSt11align_val_t(void *p, size_t size, align_val_t alignment);
BH_OPERATOR void _ZdlPvSt11align_val_tRKSt9nothrow_t(void *p, align_val_t alignment, nothrow_t tag);
BH_OPERATOR void _ZdaPvSt11align_val_tRKSt9nothrow_t(void *p, align_val_t alignment, nothrow_t tag);

/* ------------------------------------------------------------ replacements */

/* True when the public name `name` leads to another definition than `own`. The
 * compiler must not know what `name` is: it would fold the comparison that the
 * linker is to decide. */
#define BH_REPLACED(name, own) is_replaced((const void *)(name), (const void *)(own))

BH_INLINE bool is_replaced(const void *name, const void *own)
{
    __asm__("" : "+r"(name));
    return bh_unlikely(name != own);
}

/* --------------------------------------------------------------------- new */

/* The address after the call of operator new: it tells whose C++ library to ask
 * (cxx.h). Taken in the public function, since a compiler may or may not
 * inline what that calls. */
#define BH_CALLER __builtin_return_address(0)

BH_INLINE bool is_alignment(align_val_t alignment)
{
    return alignment != 0 && (alignment & (alignment - 1)) == 0;
}

BH_INLINE void *as(void *p, bool array)
{
    return array ? bhi_as_new_array(p) : bhi_as_new(p);
}

BH_INLINE void *new_plain(size_t size, bool array, const void *near)
{
    void *p = array ? bhi_new_array(size) : bhi_new(size);
    return bh_likely(p != NULL) ? p : as(bhi_cxx_new_failing(size, 0, near), array);
}

BH_INLINE void *new_plain_nothrow(size_t size, bool array, const void *near)
{
    void *p = array ? bhi_new_array(size) : bhi_new(size);
    return bh_likely(p != NULL) ? p : as(bhi_cxx_new_failing_nothrow(size, 0, near), array);
}

/* No handler can make an impossible alignment possible: the aligned forms fail
 * on it without asking one. */
BH_INLINE void *new_aligned(size_t size, align_val_t alignment, bool array, const void *near)
{
    void *p = array ? bhi_new_array_aligned(alignment, size) : bhi_new_aligned(alignment, size);
    if (bh_likely(p != NULL))
        return p;
    if (!is_alignment(alignment))
        bhi_cxx_throw_bad_alloc(size, near);
    return as(bhi_cxx_new_failing(size, alignment, near), array);
}

BH_INLINE void *new_aligned_nothrow(size_t size, align_val_t alignment, bool array, const void *near)
{
    void *p = array ? bhi_new_array_aligned(alignment, size) : bhi_new_aligned(alignment, size);
    if (bh_likely(p != NULL) || !is_alignment(alignment))
        return p;
    return as(bhi_cxx_new_failing_nothrow(size, alignment, near), array);
}

static void *new_single(size_t size)
{
    return new_plain(size, false, BH_CALLER);
}

static void *new_array(size_t size)
{
    if (BH_REPLACED(_Znwm, new_single))
        return _Znwm(size);
    return new_plain(size, true, BH_CALLER);
}

static void *new_single_aligned(size_t size, align_val_t alignment)
{
    return new_aligned(size, alignment, false, BH_CALLER);
}

static void *new_array_aligned(size_t size, align_val_t alignment)
{
    if (BH_REPLACED(_ZnwmSt11align_val_t, new_single_aligned))
        return _ZnwmSt11align_val_t(size, alignment);
    return new_aligned(size, alignment, true, BH_CALLER);
}

/* The nothrow forms of replaced operators catch what those throw. */

static void *call_new(size_t size, align_val_t alignment, const void *near)
{
    (void)alignment, (void)near;
    return _Znwm(size);
}

static void *call_new_array(size_t size, align_val_t alignment, const void *near)
{
    (void)alignment, (void)near;
    return _Znam(size);
}

static void *call_new_aligned(size_t size, align_val_t alignment, const void *near)
{
    (void)near;
    return _ZnwmSt11align_val_t(size, alignment);
}

static void *call_new_array_aligned(size_t size, align_val_t alignment, const void *near)
{
    (void)near;
    return _ZnamSt11align_val_t(size, alignment);
}

static void *new_single_nothrow(size_t size, nothrow_t tag)
{
    (void)tag;
    if (BH_REPLACED(_Znwm, new_single))
        return bhi_cxx_try(size, 0, NULL, call_new);
    return new_plain_nothrow(size, false, BH_CALLER);
}

static void *new_array_nothrow(size_t size, nothrow_t tag)
{
    (void)tag;
    if (BH_REPLACED(_Znam, new_array) || BH_REPLACED(_Znwm, new_single))
        return bhi_cxx_try(size, 0, NULL, call_new_array);
    return new_plain_nothrow(size, true, BH_CALLER);
}

static void *new_single_aligned_nothrow(size_t size, align_val_t alignment, nothrow_t tag)
{
    (void)tag;
    if (BH_REPLACED(_ZnwmSt11align_val_t, new_single_aligned))
        return bhi_cxx_try(size, alignment, NULL, call_new_aligned);
    return new_aligned_nothrow(size, alignment, false, BH_CALLER);
}

static void *new_array_aligned_nothrow(size_t size, align_val_t alignment, nothrow_t tag)
{
    (void)tag;
    if (BH_REPLACED(_ZnamSt11align_val_t, new_array_aligned) ||
        BH_REPLACED(_ZnwmSt11align_val_t, new_single_aligned))
        return bhi_cxx_try(size, alignment, NULL, call_new_array_aligned);
    return new_aligned_nothrow(size, alignment, true, BH_CALLER);
}

/* ------------------------------------------------------------------ delete */

static void delete_single(void *p)
{
    bhi_delete(p);
}

static void delete_array(void *p)
{
    if (BH_REPLACED(_ZdlPv, delete_single))
        _ZdlPv(p);
    else
        bhi_delete_array(p);
}

static void delete_single_aligned(void *p, align_val_t alignment)
{
    (void)alignment;
    bhi_delete(p);
}

static void delete_array_aligned(void *p, align_val_t alignment)
{
    if (BH_REPLACED(_ZdlPvSt11align_val_t, delete_single_aligned))
        _ZdlPvSt11align_val_t(p, alignment);
    else
        bhi_delete_array(p);
}

/* The size is a promise about what operator new was asked for, so it can only
 * be held against the block while that operator is ours as well. */
static void delete_single_sized(void *p, size_t size)
{
    if (BH_REPLACED(_ZdlPv, delete_single) || BH_REPLACED(_Znwm, new_single))
        _ZdlPv(p);
    else
        bhi_delete_sized(p, size);
}

static void delete_array_sized(void *p, size_t size)
{
    if (BH_REPLACED(_ZdaPv, delete_array) || BH_REPLACED(_ZdlPv, delete_single) || BH_REPLACED(_Znam, new_array) ||
        BH_REPLACED(_Znwm, new_single))
        _ZdaPv(p);
    else
        bhi_delete_array_sized(p, size);
}

static void delete_single_aligned_sized(void *p, size_t size, align_val_t alignment)
{
    if (BH_REPLACED(_ZdlPvSt11align_val_t, delete_single_aligned) ||
        BH_REPLACED(_ZnwmSt11align_val_t, new_single_aligned))
        _ZdlPvSt11align_val_t(p, alignment);
    else
        bhi_delete_aligned_sized(p, alignment, size);
}

static void delete_array_aligned_sized(void *p, size_t size, align_val_t alignment)
{
    if (BH_REPLACED(_ZdaPvSt11align_val_t, delete_array_aligned) ||
        BH_REPLACED(_ZdlPvSt11align_val_t, delete_single_aligned) ||
        BH_REPLACED(_ZnamSt11align_val_t, new_array_aligned) ||
        BH_REPLACED(_ZnwmSt11align_val_t, new_single_aligned))
        _ZdaPvSt11align_val_t(p, alignment);
    else
        bhi_delete_array_aligned_sized(p, alignment, size);
}

/* Called when a constructor throws within new (nothrow) T. */
static void delete_single_nothrow(void *p, nothrow_t tag)
{
    (void)tag;
    _ZdlPv(p);
}

static void delete_array_nothrow(void *p, nothrow_t tag)
{
    (void)tag;
    _ZdaPv(p);
}

static void delete_single_aligned_nothrow(void *p, align_val_t alignment, nothrow_t tag)
{
    (void)tag;
    _ZdlPvSt11align_val_t(p, alignment);
}

static void delete_array_aligned_nothrow(void *p, align_val_t alignment, nothrow_t tag)
{
    (void)tag;
    _ZdaPvSt11align_val_t(p, alignment);
}

/* ------------------------------------------------------------ public names */

#define BH_NAME(name, own) BH_OPERATOR extern __typeof__(name) name __attribute__((alias(#own)))

BH_NAME(_Znwm, new_single);
BH_NAME(_Znam, new_array);
BH_NAME(_ZnwmRKSt9nothrow_t, new_single_nothrow);
BH_NAME(_ZnamRKSt9nothrow_t, new_array_nothrow);
BH_NAME(_ZnwmSt11align_val_t, new_single_aligned);
BH_NAME(_ZnamSt11align_val_t, new_array_aligned);
BH_NAME(_ZnwmSt11align_val_tRKSt9nothrow_t, new_single_aligned_nothrow);
BH_NAME(_ZnamSt11align_val_tRKSt9nothrow_t, new_array_aligned_nothrow);
BH_NAME(_ZdlPv, delete_single);
BH_NAME(_ZdaPv, delete_array);
BH_NAME(_ZdlPvm, delete_single_sized);
BH_NAME(_ZdaPvm, delete_array_sized);
BH_NAME(_ZdlPvRKSt9nothrow_t, delete_single_nothrow);
BH_NAME(_ZdaPvRKSt9nothrow_t, delete_array_nothrow);
BH_NAME(_ZdlPvSt11align_val_t, delete_single_aligned);
BH_NAME(_ZdaPvSt11align_val_t, delete_array_aligned);
BH_NAME(_ZdlPvmSt11align_val_t, delete_single_aligned_sized);
BH_NAME(_ZdaPvmSt11align_val_t, delete_array_aligned_sized);
BH_NAME(_ZdlPvSt11align_val_tRKSt9nothrow_t, delete_single_aligned_nothrow);
BH_NAME(_ZdaPvSt11align_val_tRKSt9nothrow_t, delete_array_aligned_nothrow);

/* ------------------------------------------------------------------- kinds */

bool bhi_operators_kept(void)
{
#define KEPT(name, own) (!BH_REPLACED(name, own))
    return KEPT(_Znwm, new_single) && KEPT(_Znam, new_array) && KEPT(_ZnwmRKSt9nothrow_t, new_single_nothrow) &&
           KEPT(_ZnamRKSt9nothrow_t, new_array_nothrow) && KEPT(_ZnwmSt11align_val_t, new_single_aligned) &&
           KEPT(_ZnamSt11align_val_t, new_array_aligned) &&
           KEPT(_ZnwmSt11align_val_tRKSt9nothrow_t, new_single_aligned_nothrow) &&
           KEPT(_ZnamSt11align_val_tRKSt9nothrow_t, new_array_aligned_nothrow) && KEPT(_ZdlPv, delete_single) &&
           KEPT(_ZdaPv, delete_array) && KEPT(_ZdlPvm, delete_single_sized) && KEPT(_ZdaPvm, delete_array_sized) &&
           KEPT(_ZdlPvRKSt9nothrow_t, delete_single_nothrow) && KEPT(_ZdaPvRKSt9nothrow_t, delete_array_nothrow) &&
           KEPT(_ZdlPvSt11align_val_t, delete_single_aligned) && KEPT(_ZdaPvSt11align_val_t, delete_array_aligned) &&
           KEPT(_ZdlPvmSt11align_val_t, delete_single_aligned_sized) &&
           KEPT(_ZdaPvmSt11align_val_t, delete_array_aligned_sized) &&
           KEPT(_ZdlPvSt11align_val_tRKSt9nothrow_t, delete_single_aligned_nothrow) &&
           KEPT(_ZdaPvSt11align_val_tRKSt9nothrow_t, delete_array_aligned_nothrow);
#undef KEPT
}
