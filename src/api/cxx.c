/* The C++ library as the operators see it, from C; see cxx.h.
 *
 * The new-handler and std::bad_alloc stay the C++ library's. They are reached by
 * weak references, or looked up by name on the failing path alone; nothing found
 * is stored, so there is no function pointer here to overwrite.
 *
 * Exceptions pass through these frames: the build compiles this file and
 * operators.c with -fexceptions. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "api/cxx.h"

#include "api/api.h"

#include <dlfcn.h>
#include <unwind.h>

/* In the archive this file and operators.c are members of their own, which only
 * C++ programs pull in. There the references are strong: a weak one would not
 * bring the C++ library's half of the work into a static link. Both use nothing
 * but public names and each other, since the archive's main member keeps all
 * other names to itself. */
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

static void *allocate(size_t size, size_t alignment)
{
    return alignment == 0 ? bh_malloc(size) : bh_aligned_alloc(alignment, size);
}

/* [new.delete.single]: the handler is called, whoever is installed at that
 * moment, until memory is there, it throws, or none is installed: then NULL. */
static BH_COLD void *allocate_with_handler(size_t size, size_t alignment, const void *near)
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

_Noreturn BH_COLD void bhi_cxx_throw_bad_alloc(size_t size, const void *near)
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

void *bhi_cxx_new_failing(size_t size, size_t alignment, const void *near)
{
    void *p = allocate_with_handler(size, alignment, near);
    if (p == NULL)
        bhi_cxx_throw_bad_alloc(size, near);
    return p;
}

void *bhi_cxx_new_failing_nothrow(size_t size, size_t alignment, const void *near)
{
    return bhi_cxx_try(size, alignment, near, allocate_with_handler);
}

/* --------------------------------------------------- try and catch, from C */

/* C has no catch. This frame names bhi_cxx_personality as its personality routine
 * and the address of its handler as its language-specific data, which is all
 * that the unwinder asks of a frame that catches. */
/* clang-format off */
#if defined(__x86_64__)
#define BH_TRY_ENTER "endbr64\n subq $8, %rsp\n .cfi_def_cfa_offset 16\n"
#define BH_TRY_CALL  "call *%rcx\n"
#define BH_TRY_LEAVE "addq $8, %rsp\n .cfi_def_cfa_offset 8\n ret\n"
#define BH_TRY_CATCH "endbr64\n movq %rax, %rdi\n call bhi_cxx_caught\n jmp 1b\n"
#elif defined(__aarch64__)
/* hint 34 and 36: landing pads for calls and jumps where branch targets are
 * enforced, nothing elsewhere. */
#define BH_TRY_ENTER "hint #34\n stp x29, x30, [sp, #-16]!\n .cfi_def_cfa_offset 16\n" \
                     ".cfi_offset 29, -16\n .cfi_offset 30, -8\n mov x29, sp\n"
#define BH_TRY_CALL  "blr x3\n"
#define BH_TRY_LEAVE "ldp x29, x30, [sp], #16\n .cfi_def_cfa_offset 0\n .cfi_restore 29\n .cfi_restore 30\n ret\n"
#define BH_TRY_CATCH "hint #36\n bl bhi_cxx_caught\n b 1b\n"
#else
#error "bhi_cxx_try is written for x86-64 and aarch64"
#endif

/* 0x1b: both addresses are 32-bit distances, resolved by the linker. */
__asm__(".pushsection .text\n"
        ".hidden bhi_cxx_try\n"
        ".globl bhi_cxx_try\n"
        ".type bhi_cxx_try, %function\n"
        ".p2align 4\n"
        "bhi_cxx_try:\n"
        ".cfi_startproc\n"
        ".cfi_personality 0x1b, bhi_cxx_personality\n"
        ".cfi_lsda 0x1b, .Lbhi_cxx_catch\n"
        BH_TRY_ENTER
        BH_TRY_CALL
        "1:\n"
        ".cfi_remember_state\n"
        BH_TRY_LEAVE
        ".cfi_restore_state\n"
        ".Lbhi_cxx_catch:\n"
        BH_TRY_CATCH
        ".cfi_endproc\n"
        ".size bhi_cxx_try, . - bhi_cxx_try\n"
        ".popsection\n");
/* clang-format on */

/* The handler: takes the exception from the unwinder and drops it. */
__attribute__((used, visibility("hidden"))) void *bhi_cxx_caught(struct _Unwind_Exception *exception);
void *bhi_cxx_caught(struct _Unwind_Exception *exception)
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
bhi_cxx_personality(int version, _Unwind_Action actions, _Unwind_Exception_Class exception_class,
                          struct _Unwind_Exception *exception, struct _Unwind_Context *context);
_Unwind_Reason_Code bhi_cxx_personality(int version, _Unwind_Action actions,
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
