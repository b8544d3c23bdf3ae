/* The C++ operators new and delete, in C under their mangled names, so that a
 * preloaded Bulkhead brings no C++ library into programs that have none.
 *
 * What the C++ library keeps: the new-handler and std::bad_alloc. They are
 * reached by weak references, or looked up by name on the failing path alone;
 * nothing found is stored, so there is no function pointer here to overwrite.
 *
 * Invariants of this file:
 *  - A program may replace some operators and keep the others, and
 *    [new.delete] says by which calls the kept ones are then defined. Those
 *    calls go through the public, weak names. The short cuts past them are
 *    taken only while the names lead here: a program with a header of its own
 *    before each block would otherwise be accused of a bad free.
 *  - Exceptions pass through the frames of the throwing forms (the build
 *    compiles this file with -fexceptions) and none leaves a nothrow form but
 *    the unwinding of a cancelled thread, which nothing may stop. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "api/api.h"
#include "base/compiler.h"

#include <dlfcn.h>
#include <unwind.h>

_Static_assert(sizeof(size_t) == sizeof(unsigned long), "the mangled names below say unsigned long");

/* In the archive this file is a member of its own, which only C++ programs pull
 * in. Its references are strong: a weak one would not bring the C++ library's
 * half of the work into a static link. It uses nothing but public names, since
 * the archive's main member keeps all others to itself. */
#ifdef BH_STATIC_LIBRARY
#define BH_CXX_REFERENCE
#define BH_LATE_BINDING 0
#else
#define BH_CXX_REFERENCE __attribute__((weak))
#define BH_LATE_BINDING 1
#endif

typedef void new_handler_t(void);
typedef new_handler_t *get_handler_t(void);
typedef void throw_bad_alloc_t(void);
typedef void *begin_catch_t(void *exception);
typedef void end_catch_t(void);

extern get_handler_t std_get_new_handler __asm__("_ZSt15get_new_handlerv") BH_CXX_REFERENCE;
extern throw_bad_alloc_t std_throw_bad_alloc __asm__("_ZSt17__throw_bad_allocv") BH_CXX_REFERENCE;
extern begin_catch_t __cxa_begin_catch BH_CXX_REFERENCE;
extern end_catch_t __cxa_end_catch BH_CXX_REFERENCE;
extern __typeof__(_Unwind_GetLanguageSpecificData) _Unwind_GetLanguageSpecificData BH_CXX_REFERENCE;
extern __typeof__(_Unwind_SetGR) _Unwind_SetGR BH_CXX_REFERENCE;
extern __typeof__(_Unwind_SetIP) _Unwind_SetIP BH_CXX_REFERENCE;

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

/* ------------------------------------------------ reaching the C++ library */

/* `name` for a process that got its C++ library by dlopen, when our weak
 * references had long been bound to nothing: visible to all, or only to the
 * object that contains `near` and what that object depends on. */
static void *find_late(const char *name, const void *near)
{
    if (!BH_LATE_BINDING)
        return NULL;
    void *found = dlsym(RTLD_DEFAULT, name);
    Dl_info where;
    if (found == NULL && dladdr(near, &where) != 0 && where.dli_fname != NULL) {
        void *object = dlopen(where.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
        if (object != NULL) {
            found = dlsym(object, name);
            dlclose(object); /* stays loaded: `near` is running in it */
        }
    }
    return found;
}

/* -------------------------------------------------------- the failing path */

static void *allocate(size_t size, align_val_t alignment)
{
    return alignment == 0 ? bh_malloc(size) : bh_aligned_alloc(alignment, size);
}

/* [new.delete.single]: the handler is called, whoever is installed at that
 * moment, until memory is there, it throws, or none is installed: then NULL.
 * `alignment` 0: the plain forms. `near`: the caller of operator new. */
static BH_COLD void *allocate_with_handler(size_t size, align_val_t alignment, const void *near)
{
    get_handler_t *get_handler = std_get_new_handler;
    if (get_handler == NULL)
        get_handler = (get_handler_t *)find_late("_ZSt15get_new_handlerv", near);
    if (get_handler == NULL)
        return NULL;
    for (;;) {
        new_handler_t *handler = get_handler();
        if (handler == NULL)
            return NULL;
        handler();
        void *p = allocate(size, alignment);
        if (p != NULL)
            return p;
    }
}

static _Noreturn BH_COLD void throw_bad_alloc(size_t size, const void *near)
{
    throw_bad_alloc_t *throw_it = std_throw_bad_alloc;
    if (throw_it == NULL)
        throw_it = (throw_bad_alloc_t *)find_late("_ZSt17__throw_bad_allocv", near);
    if (throw_it != NULL)
        throw_it();
    if (BH_LATE_BINDING)
        bhi_new_failed(size);
    __builtin_trap();
}

static BH_COLD void *fail_or_throw(size_t size, align_val_t alignment, const void *near)
{
    void *p = allocate_with_handler(size, alignment, near);
    if (p == NULL)
        throw_bad_alloc(size, near);
    return p;
}

/* --------------------------------------------------- try and catch, from C */

typedef void *try_t(size_t size, align_val_t alignment, const void *near);

/* try { return fun(size, alignment, near); } catch (...) { return NULL; }
 *
 * C has no catch. This frame names bhi_operators_personality as its
 * personality routine and the address of its handler as its language-specific
 * data, which is all that the unwinder asks of a frame that catches. */
__attribute__((visibility("hidden"))) void *bhi_operators_try(size_t size, align_val_t alignment, const void *near,
                                                              try_t *fun);

/* clang-format off */
#if defined(__x86_64__)
#define BH_TRY_ENTER "endbr64\n subq $8, %rsp\n .cfi_def_cfa_offset 16\n"
#define BH_TRY_CALL  "call *%rcx\n"
#define BH_TRY_LEAVE "addq $8, %rsp\n .cfi_def_cfa_offset 8\n ret\n"
#define BH_TRY_CATCH "endbr64\n movq %rax, %rdi\n call bhi_operators_caught\n jmp 1b\n"
#elif defined(__aarch64__)
/* hint 34 and 36: landing pads for calls and jumps where branch targets are
 * enforced, nothing elsewhere. */
#define BH_TRY_ENTER "hint #34\n stp x29, x30, [sp, #-16]!\n .cfi_def_cfa_offset 16\n" \
                     ".cfi_offset 29, -16\n .cfi_offset 30, -8\n mov x29, sp\n"
#define BH_TRY_CALL  "blr x3\n"
#define BH_TRY_LEAVE "ldp x29, x30, [sp], #16\n .cfi_def_cfa_offset 0\n .cfi_restore 29\n .cfi_restore 30\n ret\n"
#define BH_TRY_CATCH "hint #36\n bl bhi_operators_caught\n b 1b\n"
#else
#error "bhi_operators_try is written for x86-64 and aarch64"
#endif

/* 0x1b: both addresses are 32-bit distances, resolved by the linker. */
__asm__(".pushsection .text\n"
        ".hidden bhi_operators_try\n"
        ".globl bhi_operators_try\n"
        ".type bhi_operators_try, %function\n"
        ".p2align 4\n"
        "bhi_operators_try:\n"
        ".cfi_startproc\n"
        ".cfi_personality 0x1b, bhi_operators_personality\n"
        ".cfi_lsda 0x1b, .Lbhi_operators_catch\n"
        BH_TRY_ENTER
        BH_TRY_CALL
        "1:\n"
        ".cfi_remember_state\n"
        BH_TRY_LEAVE
        ".cfi_restore_state\n"
        ".Lbhi_operators_catch:\n"
        BH_TRY_CATCH
        ".cfi_endproc\n"
        ".size bhi_operators_try, . - bhi_operators_try\n"
        ".popsection\n");
/* clang-format on */

/* The handler: takes the exception from the unwinder and drops it. */
__attribute__((used, visibility("hidden"))) void *bhi_operators_caught(struct _Unwind_Exception *exception);
void *bhi_operators_caught(struct _Unwind_Exception *exception)
{
    begin_catch_t *begin_catch = __cxa_begin_catch;
    end_catch_t *end_catch = __cxa_end_catch;
    if (begin_catch == NULL || end_catch == NULL) {
        /* The exception's own runtime is where its destructor is. */
        const void *near = (const void *)exception->exception_cleanup;
        begin_catch = (begin_catch_t *)find_late("__cxa_begin_catch", near);
        end_catch = (end_catch_t *)find_late("__cxa_end_catch", near);
    }
    if (begin_catch != NULL && end_catch != NULL) {
        begin_catch(exception);
        end_catch();
    }
    return NULL;
}

__attribute__((used, visibility("hidden"))) _Unwind_Reason_Code
bhi_operators_personality(int version, _Unwind_Action actions, _Unwind_Exception_Class exception_class,
                          struct _Unwind_Exception *exception, struct _Unwind_Context *context);
_Unwind_Reason_Code bhi_operators_personality(int version, _Unwind_Action actions,
                                              _Unwind_Exception_Class exception_class,
                                              struct _Unwind_Exception *exception, struct _Unwind_Context *context)
{
    (void)exception_class; /* catch (...) takes foreign exceptions too */
    if (version != 1)
        return _URC_FATAL_PHASE1_ERROR;
    /* Thread cancellation must run to the end of the stack. */
    if (actions & _UA_FORCE_UNWIND)
        return _URC_CONTINUE_UNWIND;

    __typeof__(_Unwind_GetLanguageSpecificData) *get_handler = _Unwind_GetLanguageSpecificData;
    __typeof__(_Unwind_SetGR) *set_register = _Unwind_SetGR;
    __typeof__(_Unwind_SetIP) *set_ip = _Unwind_SetIP;
    if (get_handler == NULL || set_register == NULL || set_ip == NULL) {
        const void *unwinder = __builtin_return_address(0);
        get_handler = (__typeof__(get_handler))find_late("_Unwind_GetLanguageSpecificData", unwinder);
        set_register = (__typeof__(set_register))find_late("_Unwind_SetGR", unwinder);
        set_ip = (__typeof__(set_ip))find_late("_Unwind_SetIP", unwinder);
        if (get_handler == NULL || set_register == NULL || set_ip == NULL)
            return _URC_CONTINUE_UNWIND;
    }

    if (actions & _UA_SEARCH_PHASE)
        return _URC_HANDLER_FOUND;
    if (!(actions & _UA_HANDLER_FRAME))
        return _URC_CONTINUE_UNWIND;
    set_register(context, __builtin_eh_return_data_regno(0), (_Unwind_Word)exception);
    set_ip(context, (_Unwind_Ptr)get_handler(context));
    return _URC_INSTALL_CONTEXT;
}

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
 * (find_late). Taken in the public function, since a compiler may or may not
 * inline what that calls. */
#define BH_CALLER __builtin_return_address(0)

BH_INLINE bool is_alignment(align_val_t alignment)
{
    return alignment != 0 && (alignment & (alignment - 1)) == 0;
}

BH_INLINE void *new_plain(size_t size, const void *near)
{
    void *p = bh_malloc(size);
    return bh_likely(p != NULL) ? p : fail_or_throw(size, 0, near);
}

BH_INLINE void *new_plain_nothrow(size_t size, const void *near)
{
    void *p = bh_malloc(size);
    return bh_likely(p != NULL) ? p : bhi_operators_try(size, 0, near, allocate_with_handler);
}

/* No handler can make an impossible alignment possible: the aligned forms fail
 * on it without asking one. */
BH_INLINE void *new_aligned(size_t size, align_val_t alignment, const void *near)
{
    void *p = bh_aligned_alloc(alignment, size);
    if (bh_likely(p != NULL))
        return p;
    if (!is_alignment(alignment))
        throw_bad_alloc(size, near);
    return fail_or_throw(size, alignment, near);
}

BH_INLINE void *new_aligned_nothrow(size_t size, align_val_t alignment, const void *near)
{
    void *p = bh_aligned_alloc(alignment, size);
    if (bh_likely(p != NULL) || !is_alignment(alignment))
        return p;
    return bhi_operators_try(size, alignment, near, allocate_with_handler);
}

static void *new_single(size_t size)
{
    return new_plain(size, BH_CALLER);
}

static void *new_array(size_t size)
{
    if (BH_REPLACED(_Znwm, new_single))
        return _Znwm(size);
    return new_plain(size, BH_CALLER);
}

static void *new_single_aligned(size_t size, align_val_t alignment)
{
    return new_aligned(size, alignment, BH_CALLER);
}

static void *new_array_aligned(size_t size, align_val_t alignment)
{
    if (BH_REPLACED(_ZnwmSt11align_val_t, new_single_aligned))
        return _ZnwmSt11align_val_t(size, alignment);
    return new_aligned(size, alignment, BH_CALLER);
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
        return bhi_operators_try(size, 0, NULL, call_new);
    return new_plain_nothrow(size, BH_CALLER);
}

static void *new_array_nothrow(size_t size, nothrow_t tag)
{
    (void)tag;
    if (BH_REPLACED(_Znam, new_array) || BH_REPLACED(_Znwm, new_single))
        return bhi_operators_try(size, 0, NULL, call_new_array);
    return new_plain_nothrow(size, BH_CALLER);
}

static void *new_single_aligned_nothrow(size_t size, align_val_t alignment, nothrow_t tag)
{
    (void)tag;
    if (BH_REPLACED(_ZnwmSt11align_val_t, new_single_aligned))
        return bhi_operators_try(size, alignment, NULL, call_new_aligned);
    return new_aligned_nothrow(size, alignment, BH_CALLER);
}

static void *new_array_aligned_nothrow(size_t size, align_val_t alignment, nothrow_t tag)
{
    (void)tag;
    if (BH_REPLACED(_ZnamSt11align_val_t, new_array_aligned) ||
        BH_REPLACED(_ZnwmSt11align_val_t, new_single_aligned))
        return bhi_operators_try(size, alignment, NULL, call_new_array_aligned);
    return new_aligned_nothrow(size, alignment, BH_CALLER);
}

/* ------------------------------------------------------------------ delete */

static void delete_single(void *p)
{
    bh_free(p);
}

static void delete_array(void *p)
{
    _ZdlPv(p);
}

static void delete_single_aligned(void *p, align_val_t alignment)
{
    (void)alignment;
    bh_free(p);
}

static void delete_array_aligned(void *p, align_val_t alignment)
{
    _ZdlPvSt11align_val_t(p, alignment);
}

/* The size is a promise about what operator new was asked for, so it can only
 * be held against the block while that operator is ours as well. */
static void delete_single_sized(void *p, size_t size)
{
    if (BH_REPLACED(_ZdlPv, delete_single) || BH_REPLACED(_Znwm, new_single))
        _ZdlPv(p);
    else
        bh_free_sized(p, size);
}

static void delete_array_sized(void *p, size_t size)
{
    if (BH_REPLACED(_ZdaPv, delete_array) || BH_REPLACED(_ZdlPv, delete_single) || BH_REPLACED(_Znam, new_array) ||
        BH_REPLACED(_Znwm, new_single))
        _ZdaPv(p);
    else
        bh_free_sized(p, size);
}

static void delete_single_aligned_sized(void *p, size_t size, align_val_t alignment)
{
    if (BH_REPLACED(_ZdlPvSt11align_val_t, delete_single_aligned) ||
        BH_REPLACED(_ZnwmSt11align_val_t, new_single_aligned))
        _ZdlPvSt11align_val_t(p, alignment);
    else
        bh_free_aligned_sized(p, alignment, size);
}

static void delete_array_aligned_sized(void *p, size_t size, align_val_t alignment)
{
    if (BH_REPLACED(_ZdaPvSt11align_val_t, delete_array_aligned) ||
        BH_REPLACED(_ZdlPvSt11align_val_t, delete_single_aligned) ||
        BH_REPLACED(_ZnamSt11align_val_t, new_array_aligned) ||
        BH_REPLACED(_ZnwmSt11align_val_t, new_single_aligned))
        _ZdaPvSt11align_val_t(p, alignment);
    else
        bh_free_aligned_sized(p, alignment, size);
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
