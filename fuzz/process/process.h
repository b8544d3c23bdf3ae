/* Target process: each input is a process of its own, with the library as programs have
 * it: start-up, options, signal handlers, guarded blocks, reports and the end are true,
 * and so are its threads and forks. For what the window cannot bring back. */
#ifndef BH_FUZZ_PROCESS_H
#define BH_FUZZ_PROCESS_H

#include "rt/violation.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROCESS_HEADER 5u /* profile; then options, a field of bits each */
#define PROCESS_STEP 4u
#define PROCESS_STEPS_MOST 100u

/* What the process says of itself, in memory that it shares with its judge. */
typedef struct process_told {
    uint64_t allowed;       /* violations: the program has a bug */
    uint64_t must;          /* the step under way must end with one of these */
    bool touching;          /* and may end by a fault of its own */
    uint32_t step;
    uint32_t children;      /* forked so far, by all processes of the input */
    char finding[256];      /* what a correct program may not meet */
} process_told_t;

/* The options that an input asks for, as one environment variable; the profile as another. */
typedef struct process_options {
    char profile[40], options[400];
    bool guards_all;        /* each block up to 128 KiB is guarded */
    bool foreign_goes_on, recovers, has_cap, cap_aborts;
    int mismatch;           /* 0: the process ends, 1: a report, 2: nothing */
} process_options_t;
void process_options(process_options_t *out, const uint8_t *bytes, size_t size);

/* As the library's constructors do before main elsewhere. */
void process_start_library(void);

/* In the new process: runs the program and ends. */
_Noreturn void process_run(const process_options_t *options, const uint8_t *bytes, size_t size, process_told_t *told);

/* What a correct program may not meet: ends the process. */
_Noreturn __attribute__((format(printf, 1, 2))) void process_found(const char *format, ...);

/* One of the seldom used entry points. */
void process_rare(unsigned form, size_t size);

#endif
