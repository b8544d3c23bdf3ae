// Expectations of the C++ test programs. No test library: they are compiled by
// every C++ compiler and against every C++ library of the machine.
#ifndef BH_TESTS_API_CHECK_H
#define BH_TESTS_API_CHECK_H

#include <cstdio>
#include <cstdlib>

static int failures;

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);                               \
            failures++;                                                                                                \
        }                                                                                                              \
    } while (0)

// Hides from the compiler where a pointer came from.
static inline void *opaque(void *p)
{
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

static inline int finish(const char *name)
{
    std::printf("%s: %s\n", name, failures == 0 ? "ok" : "FAILED");
    return failures == 0 ? 0 : 1;
}

#endif
