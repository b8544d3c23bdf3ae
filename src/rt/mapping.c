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

/* Whether the list was read to the end or to where `each` ended it. */
static bool look(int fd, bhi_mapping_fun_t *each, void *arg)
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
            if (line.field > ACCESS && !each(&(bhi_mapping_t){line.start, line.end, line.access, line.name}, arg))
                return true;
            memset(&line, 0, sizeof line);
        }
    }
    return false;
}

bool bhi_mapping_each(bhi_mapping_fun_t *each, void *arg)
{
    int fd = bhi_os_file_open("/proc/self/maps");
    bool whole = fd >= 0 && look(fd, each, arg);
    if (fd >= 0)
        bhi_os_file_close(fd);
    return whole;
}

static bool find(const bhi_mapping_t *m, void *arg)
{
    bh_report_t *r = arg;
    uintptr_t own_stack = (uintptr_t)__builtin_frame_address(0);
    if ((uintptr_t)r->address - m->start >= m->end - m->start)
        return true;
    r->place = own_stack >= m->start && own_stack < m->end ? "stack" : "mapping";
    r->mapping_start = (const void *)m->start;
    r->mapping_end = (const void *)m->end;
    memcpy(r->mapping_access, m->access, sizeof r->mapping_access);
    memcpy(r->mapping_name, m->name, sizeof r->mapping_name);
    return false;
}

void bhi_mapping_find(bh_report_t *r)
{
    if ((uintptr_t)r->address < SMALL_INTEGER) {
        r->place = "small integer";
        return;
    }
    if (bhi_mapping_each(find, r) && r->place == NULL)
        r->place = "unmapped";
}
