/* Stopping the other threads of the process, for moments in which memory is looked
 * through. A signal does it: its handler waits, and its frame holds the thread's
 * registers, on the thread's own stack. */
#ifndef BH_OS_WORLD_H
#define BH_OS_WORLD_H

#include "base/compiler.h"

/* Stops the others; returns how many could not be stopped, since they block the signal
 * or there is no signal left to use. bhi_os_world_go must follow. One caller at a time;
 * system calls that cannot be restarted (poll, nanosleep) end with EINTR. */
unsigned bhi_os_world_stop(void);
void bhi_os_world_go(void);

#endif
