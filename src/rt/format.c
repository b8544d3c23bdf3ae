/* Formatter for messages; see format.h. */
#include "rt/format.h"

void bhi_format_start(bhi_format_t *f)
{
    f->length = 0;
}

void bhi_format_bytes(bhi_format_t *f, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (f->length < BH_FORMAT_MAX - 1 || (f->length == BH_FORMAT_MAX - 1 && s[i] == '\n'))
            f->text[f->length++] = s[i];
    }
}

void bhi_format_text(bhi_format_t *f, const char *s)
{
    for (; *s != '\0'; s++)
        bhi_format_bytes(f, s, 1);
}

void bhi_format_foreign(bhi_format_t *f, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        bhi_format_bytes(f, s[i] >= ' ' && s[i] <= '~' ? &s[i] : "?", 1);
}

static void digits(bhi_format_t *f, uint64_t value, unsigned base)
{
    char out[20];
    size_t at = sizeof out;
    do {
        out[--at] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    bhi_format_bytes(f, out + at, sizeof out - at);
}

void bhi_format_hex(bhi_format_t *f, uintptr_t value)
{
    bhi_format_text(f, "0x");
    digits(f, value, 16);
}

void bhi_format_number(bhi_format_t *f, uint64_t value)
{
    digits(f, value, 10);
}
