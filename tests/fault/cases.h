/* The cases of the fault test. Each function runs many children and returns the
 * number of those that ended badly. */
#ifndef BH_FAULT_CASES_H
#define BH_FAULT_CASES_H

#include "inject.h"

#include <stdbool.h>
#include <sys/types.h>

/* Runs after start-up, in forked children. */
unsigned cases_nth(void);    /* each call of each kind, alone */
unsigned cases_from(void);   /* a kind fails from a call on, and all of them */
unsigned cases_random(void); /* one call in ten, one in two */
unsigned cases_locked(void); /* as in locked memory: advice and guards answer EINVAL */

/* Start-up itself, in programs that are run anew. */
unsigned startup_cases(void);
unsigned startup_leak(void);
unsigned startup_no_entropy(void);

/* The child's side of these: called from main with its arguments. */
int startup_child(int argc, char **argv);

/* Waits for a child; true when it ended with status 0 and printed nothing (what
 * it printed goes on, after `what`). *status may be NULL. */
bool cases_judge(pid_t pid, int fd, const char *what, int *status);

#endif
