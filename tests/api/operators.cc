// Every C++ operator new and delete: pairs, alignment, failure with and without
// a new-handler, sized delete. Compiled by cxx.sh for each compiler and library.
#include "check.h"

#include <cstdint>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#if __has_include(<memory_resource>)
#include <memory_resource>
#endif
#include <new>
#include <string>
#include <thread>
#include <vector>

#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

volatile std::size_t impossible = static_cast<std::size_t>(PTRDIFF_MAX) - 4096;

using nothrow = const std::nothrow_t &;
using align = std::align_val_t;

// ---------------------------------------------------------------- all pairs

bool good(void *p, std::size_t size, std::size_t alignment)
{
    if (p == nullptr || reinterpret_cast<std::uintptr_t>(p) % alignment != 0 || malloc_usable_size(p) < size)
        return false;
    std::memset(opaque(p), 0x5a, size);
    return true;
}

void test_pairs()
{
    static const std::size_t sizes[] = {0, 1, 7, 8, 9, 16, 24, 100, 1024, 1025, 9000, 70000, 131073, 5000000};
    for (std::size_t n : sizes) {
        std::size_t natural = n <= 8 ? 8 : 16;
        void *p;
#define PAIR(make, alignment, unmake)                                                                                  \
    p = make;                                                                                                          \
    CHECK(good(p, n, alignment));                                                                                      \
    unmake
        PAIR(::operator new(n), natural, ::operator delete(p));
        PAIR(::operator new(n), natural, ::operator delete(p, n));
        PAIR(::operator new(n), natural, ::operator delete(p, std::nothrow));
        PAIR(::operator new(n, std::nothrow), natural, ::operator delete(p));
        PAIR(::operator new(n, std::nothrow), natural, ::operator delete(p, n));
        PAIR(::operator new(n, std::nothrow), natural, ::operator delete(p, std::nothrow));
        PAIR(::operator new[](n), natural, ::operator delete[](p));
        PAIR(::operator new[](n), natural, ::operator delete[](p, n));
        PAIR(::operator new[](n), natural, ::operator delete[](p, std::nothrow));
        PAIR(::operator new[](n, std::nothrow), natural, ::operator delete[](p));
        PAIR(::operator new[](n, std::nothrow), natural, ::operator delete[](p, n));
        PAIR(::operator new[](n, std::nothrow), natural, ::operator delete[](p, std::nothrow));
        for (std::size_t a = 1; a <= 1u << 20; a *= 2) {
            align al{a};
            PAIR(::operator new(n, al), a, ::operator delete(p, al));
            PAIR(::operator new(n, al), a, ::operator delete(p, n, al));
            PAIR(::operator new(n, al), a, ::operator delete(p, al, std::nothrow));
            PAIR(::operator new(n, al, std::nothrow), a, ::operator delete(p, al));
            PAIR(::operator new(n, al, std::nothrow), a, ::operator delete(p, n, al));
            PAIR(::operator new(n, al, std::nothrow), a, ::operator delete(p, al, std::nothrow));
            PAIR(::operator new[](n, al), a, ::operator delete[](p, al));
            PAIR(::operator new[](n, al), a, ::operator delete[](p, n, al));
            PAIR(::operator new[](n, al), a, ::operator delete[](p, al, std::nothrow));
            PAIR(::operator new[](n, al, std::nothrow), a, ::operator delete[](p, al));
            PAIR(::operator new[](n, al, std::nothrow), a, ::operator delete[](p, n, al));
            PAIR(::operator new[](n, al, std::nothrow), a, ::operator delete[](p, al, std::nothrow));
        }
#undef PAIR
    }
    void *a = ::operator new(0), *b = ::operator new(0), *c = ::operator new[](0);
    CHECK(a != b && b != c && a != c);
    ::operator delete(a);
    ::operator delete(b, std::size_t{0});
    ::operator delete[](c);
}

void test_null()
{
    void *volatile p = nullptr;
    align al{64};
    ::operator delete(p);
    ::operator delete(p, std::size_t{10});
    ::operator delete(p, std::nothrow);
    ::operator delete(p, al);
    ::operator delete(p, std::size_t{10}, al);
    ::operator delete(p, al, std::nothrow);
    ::operator delete[](p);
    ::operator delete[](p, std::size_t{10});
    ::operator delete[](p, std::nothrow);
    ::operator delete[](p, al);
    ::operator delete[](p, std::size_t{10}, al);
    ::operator delete[](p, al, std::nothrow);
}

void test_names_are_ours()
{
    static const char *const names[] = {
        "_Znwm", "_Znam", "_ZnwmRKSt9nothrow_t", "_ZnamRKSt9nothrow_t", "_ZnwmSt11align_val_t", "_ZnamSt11align_val_t",
        "_ZnwmSt11align_val_tRKSt9nothrow_t", "_ZnamSt11align_val_tRKSt9nothrow_t", "_ZdlPv", "_ZdaPv", "_ZdlPvm",
        "_ZdaPvm", "_ZdlPvRKSt9nothrow_t", "_ZdaPvRKSt9nothrow_t", "_ZdlPvSt11align_val_t", "_ZdaPvSt11align_val_t",
        "_ZdlPvmSt11align_val_t", "_ZdaPvmSt11align_val_t", "_ZdlPvSt11align_val_tRKSt9nothrow_t",
        "_ZdaPvSt11align_val_tRKSt9nothrow_t"};
    void *known = dlsym(RTLD_DEFAULT, "bh_malloc");
    Dl_info ours;
    CHECK(known != nullptr && dladdr(known, &ours) != 0);
    if (known == nullptr)
        return;
    for (const char *name : names) {
        Dl_info where;
        void *p = dlsym(RTLD_DEFAULT, name);
        bool same = p != nullptr && dladdr(p, &where) != 0 && where.dli_fbase == ours.dli_fbase;
        if (!same)
            std::fprintf(stderr, "%s is not Bulkhead's\n", name);
        CHECK(same);
    }
}

// -------------------------------------------------------------------- failure

// How a call of operator new ended.
enum ending { RETURNED_BLOCK, RETURNED_NULL, THREW_BAD_ALLOC, THREW_OTHER };

template <class Make> ending ending_of(Make make, bool array = false)
{
    try {
        void *p = make();
        if (p == nullptr)
            return RETURNED_NULL;
        if (array)
            ::operator delete[](opaque(p));
        else
            ::operator delete(opaque(p));
        return RETURNED_BLOCK;
    } catch (const std::bad_alloc &) {
        return THREW_BAD_ALLOC;
    } catch (...) {
        return THREW_OTHER;
    }
}

// Runs `check` with each form's ending for `size`, and what a throwing and a
// nothrow form must do.
void expect_all(std::size_t size, ending throwing, ending quiet)
{
    align al{64};
    CHECK(ending_of([=] { return ::operator new(size); }) == throwing);
    CHECK(ending_of([=] { return ::operator new[](size); }, true) == throwing);
    CHECK(ending_of([=] { return ::operator new(size, al); }) == throwing);
    CHECK(ending_of([=] { return ::operator new[](size, al); }, true) == throwing);
    CHECK(ending_of([=] { return ::operator new(size, std::nothrow); }) == quiet);
    CHECK(ending_of([=] { return ::operator new[](size, std::nothrow); }, true) == quiet);
    CHECK(ending_of([=] { return ::operator new(size, al, std::nothrow); }) == quiet);
    CHECK(ending_of([=] { return ::operator new[](size, al, std::nothrow); }, true) == quiet);
}

void test_failure_without_handler()
{
    CHECK(std::get_new_handler() == nullptr);
    const std::size_t sizes[] = {impossible, PTRDIFF_MAX, SIZE_MAX, SIZE_MAX / 2 + 1, SIZE_MAX - 64};
    for (std::size_t size : sizes)
        expect_all(size, THREW_BAD_ALLOC, RETURNED_NULL);
    try {
        (void)opaque(::operator new(impossible));
    } catch (const std::exception &e) {
        CHECK(std::string(e.what()).find("bad_alloc") != std::string::npos);
    }
    try {
        char *volatile p = new char[impossible];
        (void)p;
        CHECK(false);
    } catch (const std::bad_alloc &) {
    }
}

int calls;
int calls_wanted;

void handler_that_gives_up()
{
    if (++calls == calls_wanted)
        std::set_new_handler(nullptr);
}

void test_handler_is_called_until_removed()
{
    align al{64};
    auto with_handler = [](auto make) {
        calls = 0;
        calls_wanted = 3;
        std::set_new_handler(handler_that_gives_up);
        ending e = ending_of(make);
        CHECK(calls == 3);
        CHECK(std::get_new_handler() == nullptr);
        return e;
    };
    CHECK(with_handler([] { return ::operator new(impossible); }) == THREW_BAD_ALLOC);
    CHECK(with_handler([] { return ::operator new[](impossible); }) == THREW_BAD_ALLOC);
    CHECK(with_handler([=] { return ::operator new(impossible, al); }) == THREW_BAD_ALLOC);
    CHECK(with_handler([=] { return ::operator new[](impossible, al); }) == THREW_BAD_ALLOC);
    CHECK(with_handler([] { return ::operator new(impossible, std::nothrow); }) == RETURNED_NULL);
    CHECK(with_handler([] { return ::operator new[](impossible, std::nothrow); }) == RETURNED_NULL);
    CHECK(with_handler([=] { return ::operator new(impossible, al, std::nothrow); }) == RETURNED_NULL);
    CHECK(with_handler([=] { return ::operator new[](impossible, al, std::nothrow); }) == RETURNED_NULL);
}

rlimit saved_data;

void lift_limit()
{
    calls++;
    setrlimit(RLIMIT_DATA, &saved_data);
}

// The purpose of a handler: it makes memory available and the call succeeds.
// RLIMIT_DATA, because address space may be reserved already; and alone, because
// the kernel lets mprotect pass the one limit once the other is exceeded too.
void test_handler_helps()
{
    getrlimit(RLIMIT_DATA, &saved_data);
    rlimit tight = {1 << 20, saved_data.rlim_max};
    const std::size_t size = std::size_t{1} << 30;
    auto when_tight = [&](auto make, bool array = false) {
        calls = 0;
        setrlimit(RLIMIT_DATA, &tight);
        std::set_new_handler(lift_limit);
        ending e = ending_of(make, array);
        setrlimit(RLIMIT_DATA, &saved_data);
        std::set_new_handler(nullptr);
        CHECK(calls == 1);
        return e;
    };
    CHECK(when_tight([=] { return ::operator new(size); }) == RETURNED_BLOCK);
    CHECK(when_tight([=] { return ::operator new[](size); }, true) == RETURNED_BLOCK);
    CHECK(when_tight([=] { return ::operator new(size, align{4096}); }) == RETURNED_BLOCK);
    CHECK(when_tight([=] { return ::operator new(size, std::nothrow); }) == RETURNED_BLOCK);
    CHECK(when_tight([=] { return ::operator new[](size, align{4096}, std::nothrow); }, true) == RETURNED_BLOCK);
}

// Counts its instances: whoever catches it must destroy it.
struct counted {
    static int alive;
    counted() { alive++; }
    counted(const counted &) { alive++; }
    ~counted() { alive--; }
};
int counted::alive;

struct counted_bad_alloc : std::bad_alloc, counted {};

void handler_that_throws_bad_alloc()
{
    throw counted_bad_alloc();
}

void handler_that_throws_other()
{
    throw counted();
}

struct allocates_in_destructor {
    ~allocates_in_destructor()
    {
        CHECK(std::uncaught_exceptions() == 1);
        CHECK(ending_of([] { return ::operator new(impossible, std::nothrow); }) == RETURNED_NULL);
        CHECK(std::uncaught_exceptions() == 1);
    }
};

void test_handler_throws()
{
    for (int i = 0; i < 1000; i++) {
        std::set_new_handler(handler_that_throws_bad_alloc);
        expect_all(impossible, THREW_BAD_ALLOC, RETURNED_NULL);
        std::set_new_handler(handler_that_throws_other);
        expect_all(impossible, THREW_OTHER, RETURNED_NULL);
        CHECK(std::uncaught_exceptions() == 0);
        CHECK(counted::alive == 0);
    }
    // Within another handler, and while another exception is under way.
    try {
        throw 5;
    } catch (int) {
        expect_all(impossible, THREW_OTHER, RETURNED_NULL);
        CHECK(std::current_exception() != nullptr);
    }
    try {
        allocates_in_destructor a;
        throw 6;
    } catch (int n) {
        CHECK(n == 6);
    }
    CHECK(std::uncaught_exceptions() == 0);
    CHECK(counted::alive == 0);
    std::set_new_handler(nullptr);
}

void test_many_threads_fail_at_once()
{
    std::set_new_handler(handler_that_throws_bad_alloc);
    std::vector<std::thread> threads;
    int wrong[8] = {};
    for (int t = 0; t < 8; t++) {
        threads.emplace_back([&wrong, t] {
            for (int i = 0; i < 300; i++) {
                wrong[t] += ending_of([] { return ::operator new(impossible); }) != THREW_BAD_ALLOC;
                wrong[t] += ending_of([] { return ::operator new(impossible, std::nothrow); }) != RETURNED_NULL;
                wrong[t] += ending_of([] { return ::operator new(100); }) != RETURNED_BLOCK;
            }
        });
    }
    for (std::thread &t : threads)
        t.join();
    for (int w : wrong)
        CHECK(w == 0);
    std::set_new_handler(nullptr);
}

void handler_not_to_be_called()
{
    calls++;
    std::set_new_handler(nullptr);
}

void test_impossible_alignment()
{
    calls = 0;
    std::set_new_handler(handler_not_to_be_called);
    for (std::size_t a : {0, 3, 24, 100}) {
        align al{a};
        CHECK(ending_of([=] { return ::operator new(8, al); }) == THREW_BAD_ALLOC);
        CHECK(ending_of([=] { return ::operator new[](8, al); }, true) == THREW_BAD_ALLOC);
        CHECK(ending_of([=] { return ::operator new(8, al, std::nothrow); }) == RETURNED_NULL);
        CHECK(ending_of([=] { return ::operator new[](8, al, std::nothrow); }, true) == RETURNED_NULL);
    }
    CHECK(calls == 0);
    std::set_new_handler(nullptr);
}

// A thread that ends itself within the handler: its stack is unwound through
// operator new, and no catch on the way may stop that.
void handler_that_ends_the_thread()
{
    pthread_exit(nullptr);
}

void *allocate_and_end(void *)
{
    (void)opaque(::operator new(impossible));
    return &calls;
}

void test_thread_ends_in_handler()
{
    std::set_new_handler(handler_that_ends_the_thread);
    pthread_t thread;
    void *result = nullptr;
    CHECK(pthread_create(&thread, nullptr, allocate_and_end, nullptr) == 0);
    CHECK(pthread_join(thread, &result) == 0);
    CHECK(result == nullptr);
    std::set_new_handler(nullptr);
}

// --------------------------------------------------------------- sized delete

// Runs `body` in a child that must end with SIGABRT after a line with `id`. A
// build without hardening, for measuring, detects nothing.
template <class Body> void expect_violation(const char *id, Body body)
{
    if (std::getenv("BULKHEAD_TEST_HARDENING_OFF") != nullptr)
        return;
    int fds[2];
    CHECK(pipe(fds) == 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(fds[1], 2);
        body();
        _exit(0);
    }
    close(fds[1]);
    char text[4096];
    std::size_t length = 0;
    ssize_t n;
    while ((n = read(fds[0], text + length, sizeof text - 1 - length)) > 0)
        length += static_cast<std::size_t>(n);
    close(fds[0]);
    text[length] = '\0';
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    std::string start = std::string("bulkhead: ERROR: ") + id + ": ";
    bool right = std::strncmp(text, start.c_str(), start.size()) == 0 && WIFSIGNALED(status) &&
                 WTERMSIG(status) == SIGABRT;
    if (!right)
        std::fprintf(stderr, "expected %s, got status %#x and \"%s\"\n", id, static_cast<unsigned>(status), text);
    CHECK(right);
}

struct small {
    virtual ~small() = default;
    char c[20];
};

struct large {
    char c[5000];
};

void test_sized_delete()
{
    volatile std::size_t wrong = 5000;
    align al{64};
    expect_violation("size-mismatch", [=] { ::operator delete(opaque(::operator new(20)), wrong); });
    expect_violation("size-mismatch", [=] { ::operator delete[](opaque(::operator new[](20)), wrong); });
    expect_violation("size-mismatch", [=] { ::operator delete(opaque(::operator new(20, al)), wrong, al); });
    expect_violation("size-mismatch", [=] { ::operator delete[](opaque(::operator new[](20, al)), wrong, al); });
    expect_violation("size-mismatch", [=] { ::operator delete(opaque(::operator new(20, std::nothrow)), wrong); });
    expect_violation("size-mismatch", [] { delete static_cast<large *>(opaque(::operator new(20))); });
    expect_violation("double-free", [] {
        void *p = ::operator new(20);
        ::operator delete(opaque(p));
        ::operator delete(opaque(p));
    });
    expect_violation("double-free", [] {
        void *p = ::operator new[](20);
        ::operator delete[](opaque(p), std::size_t{20});
        ::operator delete[](opaque(p), std::size_t{20});
    });
    expect_violation("invalid-free", [] {
        char *p = static_cast<char *>(::operator new(100));
        ::operator delete(opaque(p + 16));
    });
    expect_violation("invalid-free", [=] {
        char *p = static_cast<char *>(::operator new(100, al));
        ::operator delete(opaque(p + 1), al);
    });
}

// -------------------------------------------------------------- the language

struct alignas(128) over_aligned {
    char c[200];
    std::string s = "a string that is longer than the short one";
};

struct throws_in_constructor {
    throws_in_constructor() { throw 7; }
    char c[64];
};

struct alignas(64) throws_aligned {
    throws_aligned() { throw 8; }
    char c[64];
};

template <class T> bool constructor_throws()
{
    int caught = 0;
    try {
        delete new T;
    } catch (int) {
        caught++;
    }
    try {
        delete new (std::nothrow) T;
    } catch (int) {
        caught++;
    }
    try {
        delete[] new T[3];
    } catch (int) {
        caught++;
    }
    try {
        delete[] new (std::nothrow) T[3];
    } catch (int) {
        caught++;
    }
    return caught == 4;
}

void test_language()
{
    for (int i = 0; i < 200; i++) {
        delete new small;
        delete new (std::nothrow) small;
        delete[] new small[7];
        delete[] new (std::nothrow) small[7];
        delete[] new int[static_cast<std::size_t>(i)];
        over_aligned *p = new over_aligned, *q = new over_aligned[3];
        CHECK(reinterpret_cast<std::uintptr_t>(p) % 128 == 0 && reinterpret_cast<std::uintptr_t>(q) % 128 == 0);
        delete p;
        delete[] q;
        delete[] new (std::nothrow) over_aligned[5];
        std::map<std::string, std::vector<int>> m;
        for (int k = 0; k < 50; k++)
            m[std::to_string(k)].assign(static_cast<std::size_t>(k * 10), k);
        auto shared = std::make_shared<small>();
        auto array = std::make_unique<std::string[]>(20);
        std::thread([shared, a = std::move(array)] {}).join();
    }
    CHECK(constructor_throws<throws_in_constructor>());
    CHECK(constructor_throws<throws_aligned>());
}

#ifdef __cpp_lib_memory_resource
void test_memory_resource()
{
    std::pmr::memory_resource *r = std::pmr::new_delete_resource();
    for (std::size_t a = 1; a <= 4096; a *= 2) {
        void *p = r->allocate(100, a);
        CHECK(good(p, 100, a));
        r->deallocate(p, 100, a);
    }
    std::pmr::unsynchronized_pool_resource pool(r);
    std::pmr::vector<std::pmr::string> v(&pool);
    for (int i = 0; i < 1000; i++)
        v.emplace_back("a string that is longer than the short one");
}
#else
void test_memory_resource() {}
#endif

} // namespace

int main(int argc, char **)
{
    // Any argument: linked with an archive, whose names dlsym does not see.
    if (argc == 1)
        test_names_are_ours();
    test_pairs();
    test_null();
    test_failure_without_handler();
    test_handler_is_called_until_removed();
    test_handler_helps();
    test_handler_throws();
    test_many_threads_fail_at_once();
    test_impossible_alignment();
    test_thread_ends_in_handler();
    test_sized_delete();
    test_language();
    test_memory_resource();
    return finish("operators");
}
