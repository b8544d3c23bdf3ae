/* Control data stays out of reach: no word anywhere in block memory, whatever
 * was allocated, freed, freed by another thread, written or resized, is an
 * address inside the control reservation; and both reservations lie apart at
 * distances that no two processes share.
 *
 * The blocks' memory is read through the kernel, page by page, so that guards
 * and memory never touched are no obstacle. */
#include "bulkhead.h"
#include "child.h"
#include "meta/arena.h"
#include "targets.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BLOCKS 60000
#define ROUNDS 4
#define RANGES 256
#define PROCESSES 64

/* ------------------------------------------------------------- a busy process */

static uintptr_t blocks[BLOCKS];

static void *free_some(void *arg)
{
    for (size_t i = (size_t)(uintptr_t)arg; i < BLOCKS; i += 7) {
        if (blocks[i] != 0)
            target_give(blocks[i]);
        blocks[i] = 0;
    }
    return NULL;
}

static size_t some_size(uint64_t *random)
{
    uint32_t r = attack_below(random, 1000);
    if (r < 900)
        return attack_below(random, 300);
    if (r < 990)
        return attack_below(random, 20000);
    return r < 999 ? attack_below(random, 200000) : attack_below(random, 3000000);
}

static void *churn(void *arg)
{
    uint64_t *random = arg;
    for (size_t i = 0; i < BLOCKS; i++) {
        if (blocks[i] != 0 && attack_below(random, 2) == 0) {
            target_give(blocks[i]);
            blocks[i] = 0;
        }
        if (blocks[i] == 0) {
            size_t size = some_size(random);
            blocks[i] = target_take(size);
            memset((void *)blocks[i], 0x77, size < 64 ? size : 64); /* NOLINT */
        }
    }
    return NULL;
}

static pthread_t start(void *(*body)(void *), void *arg)
{
    pthread_t t;
    if (pthread_create(&t, NULL, body, arg) != 0)
        attack_broken("pthread_create");
    return t;
}

static void be_busy(uint64_t *random)
{
    for (int round = 0; round < ROUNDS; round++) {
        /* Every second time by a thread that then ends: its heap is adopted. */
        if (round % 2 == 0)
            churn(random);
        else
            pthread_join(start(churn, random), NULL);
        pthread_join(start(free_some, (void *)(uintptr_t)round), NULL);
        bh_heap_t *heap = bh_heap_new();
        for (int i = 0; i < 500; i++) {
            void *p = bh_heap_malloc(heap, some_size(random));
            if (i % 3 == 0)
                bh_free(p);
        }
        bh_heap_delete(heap);
    }
}

/* ---------------------------------------------------------------------- ranges */

typedef struct range {
    uintptr_t from, to;
} range_t;

static range_t control[RANGES], data[RANGES * 64];
static size_t controls, datas;

/* Mappings that touch each other are one reservation, whatever their access. */
static void read_maps(void)
{
    static char line[512];
    static range_t all[65536];
    static char access[65536];
    size_t n = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    if (maps == NULL)
        attack_broken("/proc/self/maps");
    while (fgets(line, sizeof line, maps) != NULL && n < sizeof all / sizeof all[0]) {
        char mode[8];
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %7s", &all[n].from, &all[n].to, mode) == 3)
            access[n++] = mode[0];
    }
    fclose(maps);
    uintptr_t marks[] = {(uintptr_t)bhi_process.state, bhi_state->arenas[0].descs, (uintptr_t)bhi_state->arenas[0].headers,
                         bhi_state->pool.at};
    for (size_t i = 0; i < n;) {
        size_t end = i + 1;
        bool is_control = false, is_data = false;
        while (end < n && all[end].from == all[end - 1].to)
            end++;
        for (size_t m = 0; m < sizeof marks / sizeof marks[0]; m++)
            is_control |= marks[m] >= all[i].from && marks[m] < all[end - 1].to;
        is_data = all[i].from <= bhi_state->arenas[0].base && bhi_state->arenas[0].base < all[end - 1].to;
        if (is_control && is_data)
            attack_broken("blocks and control data touch each other");
        /* Of the control reservation only what is open: a pointer elsewhere
         * leads nowhere, and 16 GiB would meet a random word now and then. */
        for (size_t k = i; k < end; k++) {
            if (is_control && access[k] == 'r' && controls < RANGES && all[k].to - all[k].from < ((uintptr_t)1 << 30))
                control[controls++] = all[k];
            if (is_data && access[k] == 'r' && datas < RANGES * 64)
                data[datas++] = all[k];
        }
        i = end;
    }
}

static bool in_control(uintptr_t word)
{
    for (size_t i = 0; i < controls; i++) {
        if (word - control[i].from < control[i].to - control[i].from)
            return true;
    }
    return false;
}

/* ------------------------------------------------------------------------ scan */

/* Every byte offset: a pointer stored unaligned is a pointer too. */
static unsigned long scan_page(const unsigned char *copy, size_t size, uintptr_t at)
{
    unsigned long found = 0;
    for (size_t i = 0; i + sizeof(uintptr_t) <= size; i++) {
        uintptr_t word;
        memcpy(&word, copy + i, sizeof word);
        if (in_control(word)) {
            found++;
            printf("  0x%" PRIxPTR " holds 0x%" PRIxPTR ", an address of control data\n", at + i, word);
        }
    }
    return found;
}

static unsigned long scan(size_t *pages)
{
    static unsigned char copy[1 << 16];
    size_t os_page = (size_t)sysconf(_SC_PAGESIZE);
    int mem = open("/proc/self/mem", O_RDONLY), map = open("/proc/self/pagemap", O_RDONLY);
    unsigned long found = 0;
    if (mem < 0 || map < 0)
        attack_broken("/proc/self/mem or pagemap");
    for (size_t i = 0; i < datas; i++) {
        for (uintptr_t at = data[i].from; at < data[i].to; at += os_page) {
            uint64_t entry = 0;
            if (pread(map, &entry, sizeof entry, (off_t)(at / os_page * sizeof entry)) != sizeof entry || entry >> 62 == 0)
                continue; /* not in memory: nothing was ever stored there */
            if (pread(mem, copy, os_page, (off_t)at) == (ssize_t)os_page) {
                found += scan_page(copy, os_page, at);
                ++*pages;
            }
        }
    }
    close(mem);
    close(map);
    return found;
}

/* --------------------------------------------------------------------- distance */

/* Each process is started afresh, not forked: bases are drawn at start-up. */
static bool distances(const char *self)
{
    uintptr_t seen[PROCESSES];
    unsigned same = 0;
    for (size_t i = 0; i < PROCESSES; i++) {
        attack_end_t end;
        attack_exec(self, "distance", "BULKHEAD_VERBOSE", "0", &end);
        if (end.count != 0 || sscanf(end.text, "%" SCNxPTR, &seen[i]) != 1)
            attack_broken("a process that tells its distance");
        for (size_t k = 0; k < i; k++)
            same += seen[k] == seen[i];
    }
    printf("%-4s distance from blocks to control data: %u of %d processes share it with another\n", same == 0 ? "ok" : "FAIL", same,
           PROCESSES);
    return same == 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "distance") == 0) {
        bh_free(bh_malloc(1));
        fprintf(stderr, "%" PRIxPTR "\n", (uintptr_t)bhi_process.state - bhi_state->arenas[0].base);
        return 0;
    }
    uint64_t random = attack_begin("control-data");
    be_busy(&random);
    read_maps();
    if (controls == 0 || datas == 0)
        attack_broken("no control data or no blocks found in the maps");
    /* The scan must be able to find what it looks for. */
    uintptr_t bait = (uintptr_t)bhi_process.state + 64;
    volatile unsigned char *holder = (volatile unsigned char *)target_take(64); /* NOLINT */
    for (size_t i = 0; i < sizeof bait; i++) /* byte by byte: the compiler must not find the store useless */
        holder[13 + i] = (unsigned char)(bait >> (8 * i));
    size_t pages = 0;
    puts("one planted pointer, to be found:");
    unsigned long planted = scan(&pages);
    for (size_t i = 0; i < sizeof bait; i++)
        holder[13 + i] = 0;
    pages = 0;
    unsigned long found = scan(&pages);
    bool ok = planted == 1 && found == 0;
    printf("%-4s words in %zu OS pages of blocks that point to control data: %lu (planted and found: %lu)\n",
           ok ? "ok" : "FAIL", pages, found, planted);
    /* Sanitizers own the address space: there the kernel chooses both bases. */
    if (!BH_SANITIZED)
        ok &= distances("/proc/self/exe");
    return ok ? 0 : 1;
}
