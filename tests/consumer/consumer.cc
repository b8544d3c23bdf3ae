// The same for C++: the operators are Bulkhead's and std::bad_alloc still the
// C++ library's.
#include <bulkhead.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>

static volatile std::size_t impossible = static_cast<std::size_t>(PTRDIFF_MAX) - 4096;

int main()
{
    if (bh_version() != BH_VERSION_MAJOR * 10000 + BH_VERSION_MINOR * 100 + BH_VERSION_PATCH)
        return 1;
    auto p = std::make_unique<char[]>(100);
    std::string s(1000, 'x');
    if (bh_usable_size(p.get()) < 100 || bh_usable_size(s.data()) < 1000)
        return 1;
    if (::operator new(impossible, std::nothrow) != nullptr)
        return 1;
    try {
        ::operator delete(::operator new(impossible));
        return 1;
    } catch (const std::bad_alloc &) {
        std::puts("consumer: ok");
    }
    return 0;
}
