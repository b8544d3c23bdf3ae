// The same for C++: the operators are Bulkhead's and std::bad_alloc still the
// C++ library's.
#include <bulkhead.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <list>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

static volatile std::size_t impossible = static_cast<std::size_t>(PTRDIFF_MAX) - 4096;

// Containers with both allocators: their contents, where it comes from, and that
// they can be copied, moved and swapped between heaps.
static bool containers()
{
    struct alignas(64) line {
        char text[64];
    };
    std::vector<int, bh::allocator<int>> v;
    for (int i = 0; i < 10000; i++)
        v.push_back(i);
    std::vector<line, bh::allocator<line>> lines(100);
    std::map<int, std::string, std::less<int>, bh::allocator<std::pair<const int, std::string>>> m;
    for (int i = 0; i < 1000; i++)
        m[i] = std::to_string(i);
    if (v[9999] != 9999 || m[999] != "999" || reinterpret_cast<std::uintptr_t>(lines.data()) % 64 != 0)
        return false;
    if (!bh_heap_contains_block(nullptr, v.data()) || bh::allocator<int>() != bh::allocator<line>())
        return false;

    bh_heap_t *a = bh_heap_new(), *b = bh_heap_new();
    {
        using list = std::list<int, bh::heap_allocator<int>>;
        list x{list::allocator_type(a)}, y{list::allocator_type(b)};
        x.assign(1000, 7);
        y.assign(10, 8);
        std::vector<int, bh::heap_allocator<int>> w(500, 3, a);
        if (!bh_heap_contains_block(a, &x.front()) || !bh_heap_contains_block(b, &y.front()) || !bh_heap_contains_block(a, w.data()))
            return false;
        std::swap(x, y);
        list z = x;
        x = std::move(y);
        if (x.size() != 1000 || z.size() != 10 || x.get_allocator() == z.get_allocator())
            return false;
    }
    bh_heap_stats_t left{};
    left.struct_size = sizeof left;
    bool none = bh_heap_stats_get(a, &left) && left.used_count == 0 && bh_heap_stats_get(b, &left) && left.used_count == 0;
    bh_heap_delete(a);
    bh_heap_delete(b);
    try {
        bh::allocator<line>().deallocate(bh::allocator<line>().allocate(impossible), impossible);
        return false;
    } catch (const std::bad_alloc &) {
        return none;
    }
}

int main()
{
    if (bh_version() != BH_VERSION_MAJOR * 10000 + BH_VERSION_MINOR * 100 + BH_VERSION_PATCH)
        return 1;
    auto p = std::make_unique<char[]>(100);
    std::string s(1000, 'x');
    if (bh_usable_size(p.get()) < 100 || bh_usable_size(s.data()) < 1000)
        return 1;
    if (!containers())
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
