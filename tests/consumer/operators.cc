// A C++ program that brings the operators of bulkhead-new-delete.h itself.
#include <bulkhead-new-delete.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

static volatile std::size_t impossible = static_cast<std::size_t>(PTRDIFF_MAX) - 4096;
static int handled;

static void handler()
{
    if (++handled == 3)
        std::set_new_handler(nullptr);
}

template <class T> static bool ours(const T *p)
{
    return bh_check_owned(p) && reinterpret_cast<std::uintptr_t>(p) % alignof(T) == 0;
}

int main()
{
    struct alignas(128) wide {
        char text[200];
    };
    struct alignas(16) narrow {
        char text;
    };
    auto one = std::make_unique<int>(1);
    auto many = std::make_unique<std::string[]>(100);
    auto aligned = std::make_unique<wide>();
    auto array = std::make_unique<wide[]>(7);
    auto small = std::make_unique<narrow>();
    std::unique_ptr<char[]> none(new char[0]);
    std::unique_ptr<wide> quiet(new (std::nothrow) wide);
    if (!ours(one.get()) || !ours(many.get()) || !ours(aligned.get()) || !ours(array.get()) || !ours(small.get()) ||
        !ours(none.get()) || !ours(quiet.get()))
        return 1;
    std::vector<std::string> v(1000, std::string(100, 'x'));
    if (::operator new(impossible, std::nothrow) != nullptr || ::operator new(impossible, std::align_val_t(64), std::nothrow) != nullptr)
        return 1;
    std::set_new_handler(handler);
    try {
        ::operator delete(::operator new(impossible));
        return 1;
    } catch (const std::bad_alloc &) {
        if (handled != 3)
            return 1;
    }
    std::puts("consumer: ok");
    return 0;
}
