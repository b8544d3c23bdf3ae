/* A target for afl-fuzz: persistent, the input in shared memory. */
#include "run.h"

#include <unistd.h>

#ifndef FUZZ_TARGET
#error "FUZZ_TARGET is the target's number"
#endif

__AFL_FUZZ_INIT();
__AFL_COVERAGE();

/* What a reset has to do depends on the run before. */
static void coverage(bool on)
{
    if (on)
        __AFL_COVERAGE_ON();
    else
        __AFL_COVERAGE_OFF();
}

/* The macros are AFL++'s. */
#pragma clang diagnostic ignored "-Wsign-conversion"
#pragma clang diagnostic ignored "-Wshorten-64-to-32"

int main(void)
{
    run_coverage = coverage;
    __AFL_INIT();
    const unsigned char *input = __AFL_FUZZ_TESTCASE_BUF;
    while (__AFL_LOOP(100000)) {
        int size = __AFL_FUZZ_TESTCASE_LEN;
        run_input(FUZZ_TARGET, input, size > 0 ? (size_t)size : 0);
    }
    return 0;
}
