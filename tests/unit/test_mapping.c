/* rt/mapping.c: what /proc/self/maps says of an address, whatever it says and however it
 * is cut into pieces. */
#include "rt/mapping.h"
#include "support.h"

#include <string.h>

static const char *text;
static size_t at, step;

/* The linker sends calls of the functions without __wrap_ here. */
int __wrap_bhi_os_file_open(const char *path);
long __wrap_bhi_os_file_read(int fd, void *buf, size_t size);
void __wrap_bhi_os_file_close(int fd);

int __wrap_bhi_os_file_open(const char *path)
{
    ck_assert_str_eq(path, "/proc/self/maps");
    at = 0;
    return text != NULL ? 5 : -1;
}

long __wrap_bhi_os_file_read(int fd, void *buf, size_t size)
{
    (void)fd;
    size_t n = strlen(text) - at;
    n = n < step ? n : step;
    n = n < size ? n : size;
    memcpy(buf, text + at, n);
    at += n;
    return (long)n;
}

void __wrap_bhi_os_file_close(int fd)
{
    (void)fd;
}

static void find(bh_report_t *r, uintptr_t address)
{
    memset(r, 0, sizeof *r);
    r->address = (const void *)address; /* NOLINT */
    bhi_mapping_find(r);
}

static const char plain[] = "00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/a program\n"
                            "10000000-10001000 rw-p 00000000 00:00 0\n";

START_TEST(finds)
{
    bh_report_t r;
    text = plain;
    for (step = 1; step < 80; step++) {
        find(&r, 0x451fff);
        ck_assert_str_eq(r.place, "mapping");
        ck_assert_str_eq(r.mapping_access, "r-xp");
        ck_assert_str_eq(r.mapping_name, "/usr/bin/a program");
        ck_assert((uintptr_t)r.mapping_start == 0x400000 && (uintptr_t)r.mapping_end == 0x452000);
        find(&r, 0x10000000);
        ck_assert_str_eq(r.mapping_name, "");
        find(&r, 0x452000);
        ck_assert_str_eq(r.place, "unmapped");
    }
}
END_TEST

/* In a changed root anything may be at that path: no byte of it that cannot be printed
 * reaches a report. */
START_TEST(prints_nothing_strange)
{
    bh_report_t r;
    step = 512;
    text = "00400000-00452000 r\x1b\xab\x07 0 0 0 /a\x01\x9b\x7f\n";
    find(&r, 0x400000);
    ck_assert_str_eq(r.mapping_access, "r???");
    ck_assert_str_eq(r.mapping_name, "/a???");
}
END_TEST

START_TEST(survives_nonsense)
{
    bh_report_t r;
    step = 512;
    text = "";
    find(&r, 0x400000);
    ck_assert_ptr_null(r.place);
    text = "no list\n at all\n";
    find(&r, 0x400000);
    ck_assert_ptr_null(r.place);
    text = NULL;
    find(&r, 0x400000);
    ck_assert_ptr_null(r.place);
    find(&r, 12);
    ck_assert_str_eq(r.place, "small integer");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("mapping");
    TCase *c = tcase_create("mapping");
    tcase_set_timeout(c, UNIT_TIMEOUT);
    tcase_add_test(c, finds);
    tcase_add_test(c, prints_nothing_strange);
    tcase_add_test(c, survives_nonsense);
    suite_add_tcase(s, c);
    return unit_main(s);
}
