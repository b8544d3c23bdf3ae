/* The same for libFuzzer and whatever else calls its entry point. */
#include "run.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    run_input(FUZZ_TARGET, bytes, size);
    return 0;
}
