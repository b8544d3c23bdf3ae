// A C++ program: without an argument one that leaks nothing, with "leak" one that does.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <list>
#include <locale>
#include <map>
#include <memory>
#include <regex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace {

std::map<int, std::string> table;
std::list<std::vector<int>> *volatile kept;
std::function<int()> function;
thread_local std::string own;

void *opaque(void *p)
{
    __asm__ volatile("" : "+r"(p));
    return p;
}

__attribute__((noinline)) void leak_nodes()
{
    for (volatile int i = 0; i < 10; i++)
        opaque(new char[40]);
}

__attribute__((noinline)) void leak_text()
{
    opaque(strdup("thirteen bytes but one"));
}

__attribute__((noinline)) void wipe_stack()
{
    volatile char old[16384];
    for (std::size_t i = 0; i < sizeof old; i++)
        old[i] = 0;
}

void use_library()
{
    std::cout << 3.5 << ' ' << std::boolalpha << true << std::endl;
    std::ostringstream text;
    text.imbue(std::locale("C"));
    text << 12345;
    std::cout << text.str() << std::regex_match("aab", std::regex("a*b")) << '\n';
    for (int i = 0; i < 1000; i++)
        table[i] = std::string(static_cast<std::size_t>(i), 'x');
    kept = new std::list<std::vector<int>>(100, std::vector<int>(100));
    function = [shared = std::make_shared<std::string>(300, 'y')] { return static_cast<int>(shared->size()); };
    try {
        throw std::runtime_error(std::string(300, 'z'));
    } catch (const std::exception &e) {
        own = e.what();
    }
    std::thread([] { own = std::string(500, 't'); }).join();
}

} // namespace

int main(int argc, char **)
{
    use_library();
    if (argc > 1) {
        leak_nodes();
        leak_text();
        wipe_stack();
    }
    return function() == 300 ? 0 : 1;
}
