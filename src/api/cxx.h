/* What operator new needs of the C++ library when memory is short: the
 * new-handler, std::bad_alloc, and a catch.
 *
 * `alignment` 0 stands for the plain forms. `near` is the caller of operator
 * new: it tells whose C++ library to ask in a process that loads it late. */
#ifndef BH_API_CXX_H
#define BH_API_CXX_H

#include "base/compiler.h"

/* Calls the new-handler until there is memory; throws std::bad_alloc when none
 * is installed, and whatever the handler throws. */
BH_COLD void *bhi_cxx_new_failing(size_t size, size_t alignment, const void *near);

/* The same for the nothrow forms: NULL instead of any exception. */
BH_COLD void *bhi_cxx_new_failing_nothrow(size_t size, size_t alignment, const void *near);

/* Throws std::bad_alloc; without a C++ library, bhi_new_failed. */
_Noreturn BH_COLD void bhi_cxx_throw_bad_alloc(size_t size, const void *near);

/* try { return fun(size, alignment, near); } catch (...) { return NULL; }
 * Only the unwinding of a thread that is cancelled or exits passes through. */
typedef void *bhi_cxx_fun_t(size_t size, size_t alignment, const void *near);
__attribute__((visibility("hidden"))) void *bhi_cxx_try(size_t size, size_t alignment, const void *near,
                                                        bhi_cxx_fun_t *fun);

#endif
