/* Blocks as numbers, what may not be handed out again, and the process's own
 * mappings. Nothing here allocates but take(). */
#include "table.h"

#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

uintptr_t take(size_t size)
{
    void *p = malloc(size);
    if (p == NULL)
        _exit(END_BROKEN);
    return (uintptr_t)p;
}

void give(uintptr_t p)
{
    free((void *)p);
}

size_t usable(uintptr_t p)
{
    return malloc_usable_size((void *)p);
}

unsigned char *bytes(uintptr_t p)
{
    return (unsigned char *)p;
}

uint64_t *words(uintptr_t p)
{
    return (uint64_t *)p;
}

void fill(uintptr_t p, unsigned char value, size_t n)
{
    volatile unsigned char *at = bytes(p); /* the compiler may drop what is freed next */
    for (size_t i = 0; i < n; i++)
        at[i] = value;
}

size_t some_blocks(size_t size, size_t most)
{
    size_t fit = ((size_t)64 << 20) / (size + 16);
    return fit < 4 ? 4 : fit < most ? fit : most;
}

void settle(scene_t *s)
{
    uintptr_t some[40];
    size_t n = below(s, some_blocks(s->size, 40)) + 1;
    for (size_t i = 0; i < n; i++)
        some[i] = take(s->size);
    for (size_t i = 0; i < n; i++) {
        if (i % 2 == 0)
            give(some[i]);
        else
            s->kept[s->kept_count++] = some[i];
    }
}

void take_many(scene_t *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        s->block[i] = take(s->size);
        fill(s->block[i], 0xa5, s->size < 4096 ? s->size : 4096);
    }
    s->count = n;
    s->at = s->block[n / 4 + below(s, n / 2)];
    s->reach = usable(s->at);
}

void give_others(scene_t *s)
{
    for (size_t i = 0; i < s->count; i++) {
        if (s->block[i] != s->at)
            give(s->block[i]);
    }
}

/* -------------------------------------------------------------- handed out twice */

#define MOST_RANGES 8192
static struct {
    uintptr_t low, high;
} ranges_taken[MOST_RANGES];
static size_t taken;

void protect(uintptr_t low, size_t n)
{
    if (taken == MOST_RANGES)
        _exit(END_BROKEN);
    ranges_taken[taken].low = low;
    ranges_taken[taken++].high = low + n;
}

/* Shell's sort: qsort() may allocate. */
static void sort_ranges(void)
{
    for (size_t gap = taken / 2; gap > 0; gap /= 2) {
        for (size_t i = gap; i < taken; i++) {
            __typeof__(ranges_taken[0]) one = ranges_taken[i];
            size_t j = i;
            for (; j >= gap && ranges_taken[j - gap].low > one.low; j -= gap)
                ranges_taken[j] = ranges_taken[j - gap];
            ranges_taken[j] = one;
        }
    }
}

bool reissue(size_t size, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        void *p = malloc(size);
        if (p == NULL)
            break;
        protect((uintptr_t)p, size > 0 ? size : 1);
    }
    sort_ranges();
    for (size_t i = 1; i < taken; i++) {
        if (ranges_taken[i].low < ranges_taken[i - 1].high)
            return true;
    }
    return false;
}

bool reissue_checked(scene_t *s)
{
    return reissue(s->size, some_blocks(s->size, 2000)) || s->effect;
}

/* ------------------------------------------------------------------ mappings */

static uintptr_t parse_hex(const char **at)
{
    uintptr_t n = 0;
    for (;; (*at)++) {
        char c = **at;
        if (c >= '0' && c <= '9')
            n = n << 4 | (uintptr_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            n = n << 4 | (uintptr_t)(c - 'a' + 10);
        else
            return n;
    }
}

static bool parse_line(const char *line, range_t *range)
{
    range->low = parse_hex(&line);
    line++;
    range->high = parse_hex(&line);
    bool writable = line[2] == 'w';
    /* Permissions, offset, device, inode, then the name if there is one. */
    const char *name = strpbrk(line, "[/");
    range->anonymous = name == NULL || *name != '/';
    range->special = name != NULL && (strncmp(name, "[stack", 6) == 0 || strncmp(name, "[v", 2) == 0);
    return writable;
}

size_t writable_ranges(range_t *ranges, size_t limit)
{
    static char text[1 << 18];
    size_t length = 0, count = 0;
    ssize_t n;
    int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    while (maps >= 0 && length < sizeof text - 1 && (n = read(maps, text + length, sizeof text - 1 - length)) > 0)
        length += (size_t)n;
    text[length] = '\0';
    close(maps);
    for (char *line = text; *line != '\0' && count < limit;) {
        char *end = strchr(line, '\n');
        if (end == NULL)
            break;
        *end = '\0';
        count += parse_line(line, &ranges[count]);
        line = end + 1;
    }
    return count;
}

const range_t *range_of(const range_t *ranges, size_t count, uintptr_t address)
{
    for (size_t i = 0; i < count; i++) {
        if (address >= ranges[i].low && address < ranges[i].high)
            return &ranges[i];
    }
    return NULL;
}

bool peek(uintptr_t from, void *to, size_t n)
{
    struct iovec local = {to, n}, remote = {(void *)from, n};
    return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == (ssize_t)n;
}
