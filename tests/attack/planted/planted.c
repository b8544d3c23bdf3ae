/* planted BUG DISTANCE SIZE: one heap bug of a C program, by functions whose names its
 * report must have. Right before the last step it prints block, address and thread.
 * Lines that the driver looks for end in a mark. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OTHERS 100000
#ifdef __clang__
#define APART __attribute__((noinline))
#else
#define APART __attribute__((noinline, noclone))
#endif
#define STAYS __asm__ volatile("" ::: "memory") /* the call before it is no jump */

static size_t distance, size;
static char sink;

/* The compiler is not to reason about what is done with it. */
static char *hidden(char *p)
{
    __asm__ volatile("" : "+r"(p));
    return p;
}

static void last_step(const char *block, const char *address)
{
    printf("last %#jx %#jx %d\n", (uintmax_t)(uintptr_t)block, (uintmax_t)(uintptr_t)address, gettid());
    fflush(stdout);
}

APART static char *make_block(size_t n)
{
    char *p = malloc(n); /* MARK allocated */
    p = hidden(p);
    memset(p, 'x', n);
    return p;
}

APART static void drop_block(char *p)
{
    free(p); /* MARK freed */
    STAYS;
}

APART static void read_at(const char *p)
{
    sink = *(const volatile char *)p; /* MARK read */
}

APART static void write_at(char *p)
{
    *(volatile char *)p = '!'; /* MARK write */
}

/* Where no guard is: one in 255 bytes around a block is a '!' already. */
static void change(char *p)
{
    *(volatile char *)p ^= 0x55;
}

APART static void drop_again(char *p)
{
    free(hidden(p)); /* MARK freed again */
    STAYS;
}

static void *drop_there(void *p)
{
    drop_block(p);
    return NULL;
}

static void *drop_again_there(void *p)
{
    last_step(p, p);
    drop_again(p);
    return NULL;
}

static void in_thread(void *(*what)(void *p), void *p)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, what, p) != 0)
        exit(3);
    pthread_join(thread, NULL);
}

APART static void others(void)
{
    for (size_t i = 0; i < OTHERS; i++)
        free(hidden(malloc(1 + i % 500)));
}

/* A block whose neighbours are free. */
APART static char *alone(void)
{
    char *before = hidden(malloc(size)), *p = make_block(size), *behind = hidden(malloc(size));
    free(before);
    free(behind);
    return p;
}

static void step(const char *what, char *block, char *at)
{
    last_step(block, at);
    if (strstr(what, "read") != NULL)
        read_at(at);
    else
        write_at(at);
}

APART static int plant(const char *bug)
{
    if (strncmp(bug, "over-", 5) == 0) {
        char *p = alone();
        step(bug, p, p + size + distance - 1);
    } else if (strncmp(bug, "under-", 6) == 0) {
        char *p = alone();
        step(bug, p, p - distance);
    } else if (strncmp(bug, "late-over", 9) == 0) {
        char *p = alone();
        change(p + size + distance - 1);
        last_step(p, p + size + distance - 1);
        drop_block(p);
    } else if (strncmp(bug, "late-under", 10) == 0) {
        char *p = alone();
        change(p - distance);
        last_step(p, p - distance);
        drop_block(p);
    } else {
        char *p = make_block(size);
        if (strstr(bug, "-there") != NULL)
            in_thread(drop_there, p);
        else
            drop_block(p);
        if (strstr(bug, "-others") != NULL)
            others();
        if (strncmp(bug, "after-", 6) == 0) {
            step(bug, p, p + distance);
        } else if (strcmp(bug, "twice-elsewhere") == 0) {
            in_thread(drop_again_there, p);
        } else {
            last_step(p, p);
            drop_again(p);
        }
    }
    return puts("went on");
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    distance = strtoul(argv[2], NULL, 10);
    size = strtoul(argv[3], NULL, 10);
    return plant(argv[1]) < 0;
}
