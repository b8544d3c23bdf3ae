// Allocates before any constructor of this program has run, and writes the
// addresses to standard output.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <unistd.h>

namespace {

std::uintptr_t at[64];

void before_constructors()
{
    for (auto &p : at)
        p = reinterpret_cast<std::uintptr_t>(std::malloc(48));
}

__attribute__((section(".preinit_array"), used)) void (*const preinit)() = before_constructors;

// A constructor of its own, so that there is one to be earlier than.
std::string text(100, 'x');

} // namespace

int main()
{
    return text.size() == 100 && write(1, at, sizeof at) == static_cast<ssize_t>(sizeof at) ? 0 : 1;
}
