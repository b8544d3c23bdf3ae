// Nothing of the C++ library but what operator new must bring with it: in a
// static link nobody else pulls in its std::bad_alloc or its unwinder.
#include <cstddef>
#include <cstdint>
#include <new>

static volatile std::size_t impossible = static_cast<std::size_t>(PTRDIFF_MAX) - 4096;

static void throwing_handler()
{
    throw 1;
}

int main()
{
    if (::operator new(impossible, std::nothrow) != nullptr)
        return 1;
    try {
        ::operator delete(::operator new(impossible));
        return 2;
    } catch (const std::bad_alloc &) {
    }
    std::set_new_handler(throwing_handler);
    return ::operator new(impossible, std::nothrow) == nullptr ? 0 : 3;
}
