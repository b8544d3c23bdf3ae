// Allocations of every kind before main, and frees after it: constructors of
// every priority, a thread that a constructor starts, thread-local objects,
// functions registered with atexit. The program prints at its very end, so that
// a failure in a destructor is one.
#include "check.h"

#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include <malloc.h>
#include <unistd.h>

namespace {

void *blocks[64];
int count;

void take(std::size_t size)
{
    blocks[count++] = std::memset(::operator new(size), 1, size);
    blocks[count++] = std::memset(std::malloc(size), 2, size);
    blocks[count++] = std::calloc(1, size);
    blocks[count++] = std::memset(std::aligned_alloc(64, size), 3, size);
}

__attribute__((constructor(101))) void first_constructor()
{
    take(24);
    take(3000);
    take(300000);
}

__attribute__((constructor)) void last_constructor()
{
    take(40);
    take(200000);
}

void before_constructors()
{
    take(100);
}

// Runs before every constructor of the program.
__attribute__((section(".preinit_array"), used)) void (*const preinit)() = before_constructors;

struct tree {
    std::map<std::string, std::vector<std::string>> m;
    std::unique_ptr<int[]> numbers;
    explicit tree(int n) : numbers(new int[static_cast<std::size_t>(n)])
    {
        for (int i = 0; i < n; i++)
            m[std::to_string(i)].assign(3, "a string that is longer than the short one");
    }
    ~tree()
    {
        // Allocates while everything is being taken down.
        std::string s(5000, 'x');
        CHECK(s.size() == 5000);
    }
};

tree global_early __attribute__((init_priority(200)))(100);
tree global(100);
thread_local tree of_thread(50);

struct starts_thread {
    std::thread t;
    std::unique_ptr<tree> made_elsewhere;
    starts_thread()
        : t([this] {
              made_elsewhere = std::make_unique<tree>(30);
              CHECK(of_thread.m.size() == 50);
          })
    {
        t.join();
    }
} thread_before_main;

void at_exit()
{
    delete new tree(10);
    for (int i = 0; i < count; i++) {
        if (i % 4 == 0)
            ::operator delete(blocks[i]);
        else
            std::free(blocks[i]);
    }
}

struct judge {
    ~judge()
    {
        if (failures != 0)
            _exit(1);
        static const char text[] = "before_main: ok\n";
        if (write(1, text, sizeof text - 1) < 0)
            _exit(1);
    }
} last_to_go __attribute__((init_priority(101)));

} // namespace

int main()
{
    CHECK(count == 24);
    for (int i = 0; i < count; i++)
        CHECK(malloc_usable_size(blocks[i]) != 0);
    CHECK(global.m.size() == 100 && global_early.m.size() == 100 && of_thread.m.size() == 50);
    std::atexit(at_exit);
    return 0;
}
