/* Attacks that each run in a process of its own, with the options of its row: how they
 * are run and judged. */
#ifndef BH_ATTACK_ROWS_H
#define BH_ATTACK_ROWS_H

#include <stddef.h>

#define ATTACK_SAYS 4

typedef struct attack_row {
    const char *name, *options;
    void (*body)(void);
    int signal;                    /* 0: the process goes on, and exits with 0 */
    const char *says[ATTACK_SAYS]; /* parts of the report */
} attack_row_t;

/* The main function of such a program; an argument says how often each row is run. Of a
 * row with a signal the first record is the mark: id and address of the report. With
 * signal 0 a mark "nothing" demands that nothing is printed. */
int attack_rows(const char *program, const attack_row_t *rows, size_t n, int argc, char **argv);

#endif
