/* What a line of the allocator's memory holds. */
#ifndef BENCH_LINES_WHERE_H
#define BENCH_LINES_WHERE_H

#include <stddef.h>
#include <stdint.h>

/* Writes the name into `name`, as of now: of a page that has ended since, the memory may
 * be called something else. Between turns only. */
void where_is(uintptr_t line, size_t line_size, char *name, size_t size);

#endif
