/* The end of a process whose throwing operator new can neither return nor
 * throw. No violation: nobody misused the heap, there is no address to report. */
#include "api/api.h"

#include "base/compiler.h"
#include "os/os.h"
#include "rt/format.h"

_Noreturn BH_COLD void bhi_new_failed(size_t size)
{
    bhi_format_t line;
    bhi_format_start(&line);
    bhi_format_text(&line, "bulkhead: ERROR: new-failed: operator new has no memory and found no C++ library to throw "
                           "std::bad_alloc (size ");
    bhi_format_number(&line, size);
    bhi_format_text(&line, ")\n");
    bhi_os_write(2, line.text, line.length);
    bhi_os_abort();
}
