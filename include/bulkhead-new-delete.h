/* Replaces a C++ program's operators new and delete with Bulkhead's functions.
 *
 * With Bulkhead linked or preloaded as usual the operators are Bulkhead's already.
 * This is for programs that want them to be so whatever other library comes first
 * with operators of its own; to be included in exactly one source file. C++14;
 * the aligned forms from C++17 on. */
#ifndef BULKHEAD_NEW_DELETE_H
#define BULKHEAD_NEW_DELETE_H

#ifndef __cplusplus
#error "bulkhead-new-delete.h is for C++"
#endif

#include "bulkhead.h"

#include <cstddef>
#include <new>

namespace bh {
namespace detail {

/* The nothrow forms: a new-handler may throw. */
inline void *obtain_nothrow(std::size_t size, std::size_t alignment) noexcept
{
#if defined(__cpp_exceptions) || defined(__EXCEPTIONS)
    try {
        return obtain(nullptr, size, alignment);
    } catch (...) {
        return nullptr;
    }
#else
    return try_obtain(nullptr, size, alignment);
#endif
}

} /* namespace detail */
} /* namespace bh */

void *operator new(std::size_t size) { return bh::detail::obtain(nullptr, size, 1); }
void *operator new[](std::size_t size) { return bh::detail::obtain(nullptr, size, 1); }
void *operator new(std::size_t size, const std::nothrow_t &) noexcept { return bh::detail::obtain_nothrow(size, 1); }
void *operator new[](std::size_t size, const std::nothrow_t &) noexcept { return bh::detail::obtain_nothrow(size, 1); }
void operator delete(void *p) noexcept { bh_free(p); }
void operator delete[](void *p) noexcept { bh_free(p); }
void operator delete(void *p, std::size_t size) noexcept { bh_free_sized(p, size); }
void operator delete[](void *p, std::size_t size) noexcept { bh_free_sized(p, size); }
void operator delete(void *p, const std::nothrow_t &) noexcept { bh_free(p); }
void operator delete[](void *p, const std::nothrow_t &) noexcept { bh_free(p); }

#if defined(__cpp_aligned_new)
void *operator new(std::size_t size, std::align_val_t a) { return bh::detail::obtain(nullptr, size, static_cast<std::size_t>(a)); }
void *operator new[](std::size_t size, std::align_val_t a) { return bh::detail::obtain(nullptr, size, static_cast<std::size_t>(a)); }
void *operator new(std::size_t size, std::align_val_t a, const std::nothrow_t &) noexcept { return bh::detail::obtain_nothrow(size, static_cast<std::size_t>(a)); }
void *operator new[](std::size_t size, std::align_val_t a, const std::nothrow_t &) noexcept { return bh::detail::obtain_nothrow(size, static_cast<std::size_t>(a)); }
void operator delete(void *p, std::align_val_t) noexcept { bh_free(p); }
void operator delete[](void *p, std::align_val_t) noexcept { bh_free(p); }
void operator delete(void *p, std::size_t size, std::align_val_t a) noexcept { bh_free_aligned_sized(p, static_cast<std::size_t>(a), size); }
void operator delete[](void *p, std::size_t size, std::align_val_t a) noexcept { bh_free_aligned_sized(p, static_cast<std::size_t>(a), size); }
void operator delete(void *p, std::align_val_t, const std::nothrow_t &) noexcept { bh_free(p); }
void operator delete[](void *p, std::align_val_t, const std::nothrow_t &) noexcept { bh_free(p); }
#endif

#endif /* BULKHEAD_NEW_DELETE_H */
