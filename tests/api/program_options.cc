// The same in C++, and the first allocation comes before every constructor.
#include "program_options.h"

#include <memory>
#include <string>
#include <vector>

#ifdef PRELOADED
extern "C" const char bh_program_options[] __attribute__((visibility("default")));
#endif
const char bh_program_options[] = "purge_delay=33:trap_from=64k:seal=1";

static int *block;
static long seen_first = -1;

static void before_constructors()
{
    block = new int[100];
    seen_first = GET("trap_from");
}

__attribute__((section(".preinit_array"), used)) static void (*const preinit)() = before_constructors;

static std::vector<std::string> strings(100, std::string(100, 'x'));

int main()
{
    delete[] block;
    if (seen_first != 65536 || strings.size() != 100) {
        std::printf("seen first: %ld\n", seen_first);
        return 1;
    }
    tell();
    return 0;
}
