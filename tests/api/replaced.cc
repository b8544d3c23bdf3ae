// A program that replaces some operators and keeps the others. [new.delete]
// says by which calls the kept ones are defined; if one of them short-cuts past
// the program's own, the allocator gets the address of a block of the program
// and accuses a correct program. With -DREPLACE_NEW_ONLY the program has no
// operator delete of its own, which the standard lets it do with plain malloc.
#include "check.h"

#include <cstdint>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include <malloc.h>

#if !defined(__clang__)
// The forms that are missing here are the ones under test, and gcc looks into
// those that are there.
#pragma GCC diagnostic ignored "-Wsized-deallocation"
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
#endif

namespace {

volatile std::size_t impossible = static_cast<std::size_t>(PTRDIFF_MAX) - 4096;
long plain_news, plain_deletes, aligned_news, aligned_deletes;

} // namespace

#ifdef REPLACE_NEW_ONLY

// Takes more than it was asked for: no size that a delete names is the block's.
void *operator new(std::size_t size)
{
    plain_news++;
    void *p = size < impossible ? std::malloc(size + 1000) : nullptr;
    if (p == nullptr)
        throw std::bad_alloc();
    return p;
}

#else

// The program's blocks begin inside the allocator's.
static constexpr std::size_t header = 64;

static void *with_header(void *p)
{
    if (p == nullptr)
        throw std::bad_alloc();
    std::memset(p, 0xcc, header);
    return static_cast<char *>(p) + header;
}

static void *without_header(void *p)
{
    if (p == nullptr)
        return nullptr;
    unsigned char *start = static_cast<unsigned char *>(p) - header;
    for (std::size_t i = 0; i < header; i++)
        CHECK(start[i] == 0xcc);
    return start;
}

void *operator new(std::size_t size)
{
    plain_news++;
    return with_header(size < impossible ? std::malloc(size + header) : nullptr);
}

void operator delete(void *p) noexcept
{
    plain_deletes += p != nullptr;
    std::free(without_header(p));
}

void *operator new(std::size_t size, std::align_val_t alignment)
{
    aligned_news++;
    std::size_t a = static_cast<std::size_t>(alignment) < header ? header : static_cast<std::size_t>(alignment);
    void *p = size < impossible ? std::aligned_alloc(a, size + a) : nullptr;
    if (p == nullptr)
        throw std::bad_alloc();
    return static_cast<char *>(with_header(static_cast<char *>(p) + a - header));
}

void operator delete(void *p, std::align_val_t alignment) noexcept
{
    aligned_deletes += p != nullptr;
    std::size_t a = static_cast<std::size_t>(alignment) < header ? header : static_cast<std::size_t>(alignment);
    if (p != nullptr)
        std::free(static_cast<char *>(without_header(p)) + header - a);
}

#endif

namespace {

struct plain {
    std::string s = "a string that is longer than the short one";
};

struct alignas(256) aligned {
    std::string s = "a string that is longer than the short one";
};

template <class Make> bool throws_bad_alloc(Make make)
{
    try {
        (void)opaque(make());
    } catch (const std::bad_alloc &) {
        return true;
    }
    return false;
}

// Every allocating form with every freeing form that fits it.
void test_plain()
{
    const std::size_t n = 100;
    using make_t = void *();
    make_t *const make[] = {[] { return ::operator new(n); }, [] { return ::operator new(n, std::nothrow); }};
    make_t *const make_array[] = {[] { return ::operator new[](n); }, [] { return ::operator new[](n, std::nothrow); }};
    for (make_t *m : make) {
        ::operator delete(opaque(m()));
        ::operator delete(opaque(m()), n);
        ::operator delete(opaque(m()), std::nothrow);
    }
    for (make_t *m : make_array) {
        ::operator delete[](opaque(m()));
        ::operator delete[](opaque(m()), n);
        ::operator delete[](opaque(m()), std::nothrow);
    }
    CHECK(plain_news == 12);
#ifndef REPLACE_NEW_ONLY
    CHECK(plain_deletes == 12);
#endif
}

#ifndef REPLACE_NEW_ONLY
void test_aligned()
{
    const std::size_t n = 100;
    using make_t = void *(std::align_val_t);
    make_t *const make[] = {[](std::align_val_t a) { return ::operator new(n, a); },
                            [](std::align_val_t a) { return ::operator new(n, a, std::nothrow); }};
    make_t *const make_array[] = {[](std::align_val_t a) { return ::operator new[](n, a); },
                                  [](std::align_val_t a) { return ::operator new[](n, a, std::nothrow); }};
    for (std::size_t alignment = 32; alignment <= 4096; alignment *= 2) {
        std::align_val_t a{alignment};
        for (make_t *m : make) {
            ::operator delete(opaque(m(a)), a);
            ::operator delete(opaque(m(a)), n, a);
            ::operator delete(opaque(m(a)), a, std::nothrow);
        }
        for (make_t *m : make_array) {
            ::operator delete[](opaque(m(a)), a);
            ::operator delete[](opaque(m(a)), n, a);
            ::operator delete[](opaque(m(a)), a, std::nothrow);
        }
    }
    CHECK(aligned_news == 8 * 12);
    CHECK(aligned_deletes == 8 * 12);
}
#endif

void test_language()
{
    for (int i = 0; i < 100; i++) {
        delete new plain;
        delete[] new plain[5];
        delete new (std::nothrow) plain;
        delete[] new (std::nothrow) plain[5];
        delete new aligned;
        delete[] new aligned[5];
        delete[] new (std::nothrow) aligned[5];
        std::vector<plain> v(20);
    }
}

void test_failure()
{
    CHECK(throws_bad_alloc([] { return ::operator new(impossible); }));
    CHECK(throws_bad_alloc([] { return ::operator new[](impossible); }));
    CHECK(throws_bad_alloc([] { return ::operator new(impossible, std::align_val_t{64}); }));
    CHECK(throws_bad_alloc([] { return ::operator new[](impossible, std::align_val_t{64}); }));
    CHECK(::operator new(impossible, std::nothrow) == nullptr);
    CHECK(::operator new[](impossible, std::nothrow) == nullptr);
    CHECK(::operator new(impossible, std::align_val_t{64}, std::nothrow) == nullptr);
    CHECK(::operator new[](impossible, std::align_val_t{64}, std::nothrow) == nullptr);
}

} // namespace

int main()
{
    plain_news = plain_deletes = aligned_news = aligned_deletes = 0;
    test_plain();
#ifndef REPLACE_NEW_ONLY
    test_aligned();
#endif
    test_language();
    test_failure();
    return finish("replaced");
}
