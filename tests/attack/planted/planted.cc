// planted BUG DISTANCE SIZE: as planted.c, of a C++ program: blocks of operator new,
// functions of a class template, and releases of the wrong kind.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <unistd.h>

#ifdef __clang__
#define APART __attribute__((noinline))
#else
#define APART __attribute__((noinline, noclone))
#endif
#define STAYS __asm__ volatile("" ::: "memory") // the call before it is no jump

namespace shop {

constexpr std::size_t others = 100000;

// The compiler is not to reason about what is done with it.
template <typename T> T *hidden(T *p)
{
    __asm__ volatile("" : "+r"(p));
    return p;
}

template <typename T> struct Shelf {
    std::size_t count;
    T *items = nullptr;

    APART explicit Shelf(std::size_t n) : count(n)
    {
        items = hidden(new T[n]); // MARK allocated
        std::memset(items, 'x', n * sizeof(T));
    }
    APART void clear() const
    {
        delete[] hidden(items); // MARK freed
        STAYS;
    }
    APART void clear_again() const
    {
        delete[] hidden(items); // MARK freed again
        STAYS;
    }
    APART T read(std::ptrdiff_t at) const
    {
        return static_cast<volatile T *>(items)[at]; // MARK read
    }
    // Where no guard is: one in 255 bytes around a block is a '!' already.
    void change(std::ptrdiff_t at) const
    {
        static_cast<volatile T *>(items)[at] = T(items[at] ^ 0x55);
    }
    APART void write(std::ptrdiff_t at) const
    {
        static_cast<volatile T *>(items)[at] = T('!'); // MARK write
    }
};

struct Price {
    long cents[6];
};

APART Price *single()
{
    Price *p = hidden(new Price()); // MARK allocated singly
    return p;
}

APART void *raw(std::size_t n)
{
    void *p = hidden(std::malloc(n)); // MARK allocated raw
    return p;
}

APART void end_single(Price *p)
{
    delete hidden(p); // MARK deleted
    STAYS;
}

APART void end_raw(void *p)
{
    std::free(hidden(p)); // MARK freed raw
    STAYS;
}

void last_step(const void *block, const void *address)
{
    std::printf("last %#jx %#jx %d\n", std::uintmax_t(std::uintptr_t(block)), std::uintmax_t(std::uintptr_t(address)), gettid());
    std::fflush(stdout);
}

APART void between()
{
    for (std::size_t i = 0; i < others; i++)
        delete[] hidden(new char[1 + i % 500]);
}

std::size_t distance, size;
char sink;

bool has(const std::string &bug, const char *word)
{
    return bug.find(word) != std::string::npos;
}

void step(const std::string &bug, const Shelf<char> &shelf, std::ptrdiff_t at)
{
    last_step(shelf.items, shelf.items + at);
    if (has(bug, "read"))
        sink = shelf.read(at);
    else
        shelf.write(at);
}

// One whose neighbours are free.
APART Shelf<char> alone()
{
    char *before = hidden(new char[size]);
    Shelf<char> shelf(size);
    char *behind = hidden(new char[size]);
    delete[] before;
    delete[] behind;
    return shelf;
}

APART void overrun(const std::string &bug)
{
    bool over = has(bug, "over-");
    Shelf<char> shelf = alone();
    std::ptrdiff_t at = over ? std::ptrdiff_t(size + distance - 1) : -std::ptrdiff_t(distance);
    if (!has(bug, "late-")) {
        step(bug, shelf, at);
        return;
    }
    shelf.change(at);
    last_step(shelf.items, shelf.items + at);
    shelf.clear();
}

APART void outlive(const std::string &bug)
{
    Shelf<char> shelf(size);
    if (has(bug, "-there"))
        std::thread([&] { shelf.clear(); }).join();
    else
        shelf.clear();
    if (has(bug, "-others"))
        between();
    if (has(bug, "after-")) {
        step(bug, shelf, std::ptrdiff_t(distance));
    } else if (has(bug, "-elsewhere")) {
        std::thread([&] {
            last_step(shelf.items, shelf.items);
            shelf.clear_again();
        }).join();
    } else {
        last_step(shelf.items, shelf.items);
        shelf.clear_again();
    }
}

APART void mismatch(const std::string &bug)
{
    if (bug == "array-delete") {
        Shelf<Price> shelf(size / sizeof(Price));
        last_step(shelf.items, shelf.items);
        end_single(shelf.items);
    } else if (bug == "malloc-delete") {
        void *p = raw(size);
        last_step(p, p);
        end_single(static_cast<Price *>(p));
    } else if (bug == "new-free") {
        void *p = single();
        last_step(p, p);
        end_raw(p);
    }
}

APART void plant(const std::string &bug)
{
    if (has(bug, "over-") || has(bug, "under-"))
        overrun(bug);
    else if (has(bug, "after-") || has(bug, "twice-"))
        outlive(bug);
    else
        mismatch(bug);
    STAYS;
}

} // namespace shop

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    shop::distance = std::strtoul(argv[2], nullptr, 10);
    shop::size = std::strtoul(argv[3], nullptr, 10);
    shop::plant(argv[1]);
    return std::puts("went on") < 0;
}
