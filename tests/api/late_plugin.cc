// C++ code that a C program loads with dlopen; see late_main.c.
#include "check.h"

#include <cstdint>
#include <exception>
#include <new>
#include <string>
#include <vector>

static volatile std::size_t impossible = static_cast<std::size_t>(PTRDIFF_MAX) - 4096;
static int calls;

static void handler()
{
    if (++calls == 2)
        std::set_new_handler(nullptr);
}

static void throwing_handler()
{
    throw std::bad_alloc();
}

static int thrown()
{
    int caught = 0;
    try {
        (void)opaque(::operator new(impossible));
    } catch (const std::bad_alloc &) {
        caught++;
    }
    try {
        (void)opaque(::operator new[](impossible, std::align_val_t{64}));
    } catch (const std::bad_alloc &) {
        caught++;
    }
    return caught;
}

extern "C" __attribute__((visibility("default"))) int run_plugin()
{
    std::vector<std::string> v(100, "a string that is longer than the short one");
    CHECK(thrown() == 2);
    CHECK(::operator new(impossible, std::nothrow) == nullptr);
    CHECK(::operator new[](impossible, std::nothrow) == nullptr);
    std::set_new_handler(handler);
    CHECK(thrown() == 2);
    CHECK(calls == 2);
    calls = 0;
    std::set_new_handler(handler);
    CHECK(::operator new(impossible, std::nothrow) == nullptr);
    CHECK(calls == 2);
    std::set_new_handler(throwing_handler);
    CHECK(thrown() == 2);
    for (int i = 0; i < 100; i++) {
        CHECK(::operator new(impossible, std::nothrow) == nullptr);
        CHECK(::operator new[](impossible, std::align_val_t{64}, std::nothrow) == nullptr);
    }
    CHECK(std::uncaught_exceptions() == 0);
    std::set_new_handler(nullptr);
    return finish("late");
}
