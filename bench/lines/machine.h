/* A simulated machine of up to 63 processors with infinite caches that are kept
 * coherent by MSI. Code compiled with -fsanitize=thread calls it at each access to
 * memory (runtime.c); it counts how often a line moves from one processor to another.
 *
 * One processor runs at a time: whoever drives the machine takes turns. */
#ifndef BENCH_LINES_MACHINE_H
#define BENCH_LINES_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MACHINE_PROCESSORS 63u

/* What a processor is doing, by which accesses are counted apart. */
enum machine_doing { MACHINE_MALLOC, MACHINE_FREE, MACHINE_END, MACHINE_DOINGS };

struct machine_counts {
    uint64_t operations;
    uint64_t reads;  /* transfers: a line that another processor has modified, or did since this one had it, is fetched to be read */
    uint64_t writes; /* transfers: others' copies are invalidated, or fetched, to write or for an atomic read and write */
    uint64_t fills;  /* no transfers: a line that others have, unmodified, is read by one that never had it */
    uint64_t cold;   /* no transfers: no processor had the line */
    uint64_t kernel; /* calls of the kernel */
};

/* Of a line, or of a place in the code. */
struct machine_moves {
    uintptr_t address; /* of its first byte; of a place, the return address of the access */
    uint64_t reads, writes;
};

/* Before the first turn. A line has 2^line_shift bytes. */
void machine_start(unsigned processors, unsigned line_shift);

/* The calling thread's stack and thread-local variables are not the machine's memory. */
void machine_thread(void);

/* The calling thread runs on `processor` from now on; -1: on none, and nothing counts. */
void machine_run(int processor);

/* The processor that runs begins an operation. */
void machine_begin(enum machine_doing doing);

/* Counters to zero; what caches hold stays. */
void machine_count(void);

struct machine_counts machine_counts(unsigned processor, enum machine_doing doing);

/* All lines, or all places, with transfers, the most first; freed by nobody. */
size_t machine_lines(const struct machine_moves **lines);
size_t machine_places(const struct machine_moves **places);

/* An operation takes so many nanoseconds of simulated time, what the program does between two
 * calls included; the processors work side by side. */
#define MACHINE_OPERATION_NS 1000u

#endif
