/* Start-up of the library by hand: what its constructors do before main, each new process
 * does here, once it knows its options. */
#include "os/os.h"

#include "process/process.h"

/* An attribute that nobody knows is none. */
#pragma GCC diagnostic ignored "-Wattributes"
#define constructor start_by_hand
#include "core/init.c"

void process_start_library(void)
{
    start_by_hand();
    constructor_late();
}
