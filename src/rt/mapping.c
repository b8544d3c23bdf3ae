/* Reads /proc/self/maps byte by byte out of a small buffer: lines may be longer
 * than any buffer, and file names hold what they like. */
#include "rt/mapping.h"

#include "os/os.h"

#include <string.h>

/* Below lies nothing (vm.mmap_min_addr), or the program meant a number. */
#define SMALL_INTEGER 65536u
/* Of a file that never ends, which a changed root may have at this path. */
#define READS_MOST 100000u

enum { START, END, ACCESS, OFFSET, DEVICE, INODE, BLANK, NAME };

typedef struct line {
    unsigned field;
    uintptr_t start, end;
    size_t access_length, name_length;
    char access[8], name[128];
} line_t;

static void hex(uintptr_t *value, char c)
{
    *value = *value << 4 | (uintptr_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
}

/* A changed root may have anything at this path. */
static void append(char *to, size_t size, size_t *length, char c)
{
    if (*length < size - 1)
        to[(*length)++] = c >= ' ' && c <= '~' ? c : '?';
}

static void take(line_t *l, char c)
{
    switch (l->field) {
    case START:
        if (c == '-')
            l->field = END;
        else
            hex(&l->start, c);
        break;
    case END:
        if (c == ' ')
            l->field = ACCESS;
        else
            hex(&l->end, c);
        break;
    case NAME:
        append(l->name, sizeof l->name, &l->name_length, c);
        break;
    case BLANK:
        if (c != ' ') {
            l->field = NAME;
            take(l, c);
        }
        break;
    default:
        if (c == ' ')
            l->field++;
        else if (l->field == ACCESS)
            append(l->access, sizeof l->access, &l->access_length, c);
    }
}

static void found(bh_report_t *r, const line_t *l, uintptr_t own_stack)
{
    r->place = own_stack >= l->start && own_stack < l->end ? "stack" : "mapping";
    r->mapping_start = (const void *)l->start;
    r->mapping_end = (const void *)l->end;
    memcpy(r->mapping_access, l->access, sizeof l->access);
    memcpy(r->mapping_name, l->name, sizeof l->name);
}

/* Whether the list was read to the end or to the mapping in question. */
static bool look(int fd, bh_report_t *r, uintptr_t own_stack)
{
    char buffer[512];
    line_t line;
    memset(&line, 0, sizeof line);
    bool any = false;
    for (unsigned reads = 0; reads < READS_MOST; reads++) {
        long n = bhi_os_file_read(fd, buffer, sizeof buffer);
        if (n <= 0)
            return n == 0 && any;
        for (long i = 0; i < n; i++) {
            if (buffer[i] != '\n') {
                take(&line, buffer[i]);
                continue;
            }
            any |= line.field > ACCESS;
            if ((uintptr_t)r->address - line.start < line.end - line.start && line.field > ACCESS) {
                found(r, &line, own_stack);
                return true;
            }
            memset(&line, 0, sizeof line);
        }
    }
    return false;
}

void bhi_mapping_find(bh_report_t *r)
{
    char here;
    if ((uintptr_t)r->address < SMALL_INTEGER) {
        r->place = "small integer";
        return;
    }
    int fd = bhi_os_file_open("/proc/self/maps");
    if (fd < 0)
        return;
    if (look(fd, r, (uintptr_t)&here) && r->place == NULL)
        r->place = "unmapped";
    bhi_os_file_close(fd);
}
