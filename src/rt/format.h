/* Text into a fixed buffer: no allocation, no stdio, no locale. Text that does
 * not fit is cut; the last byte is kept for a newline. */
#ifndef BH_RT_FORMAT_H
#define BH_RT_FORMAT_H

#include "base/compiler.h"

#define BH_FORMAT_MAX 512

typedef struct bhi_format {
    size_t length;
    char text[BH_FORMAT_MAX];
} bhi_format_t;

void bhi_format_start(bhi_format_t *f);
void bhi_format_text(bhi_format_t *f, const char *s);
void bhi_format_bytes(bhi_format_t *f, const char *s, size_t n);
/* Text from outside: what is not printable ASCII becomes '?', so that it cannot
 * forge a line or reach a terminal's controls. */
void bhi_format_foreign(bhi_format_t *f, const char *s, size_t n);
void bhi_format_hex(bhi_format_t *f, uintptr_t value);
void bhi_format_number(bhi_format_t *f, uint64_t value);

#endif
