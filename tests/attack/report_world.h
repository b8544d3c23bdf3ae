/* The surroundings in which reports are tried: sandboxes, roots, namespaces. */
#ifndef BH_ATTACK_REPORT_WORLD_H
#define BH_ATTACK_REPORT_WORLD_H

#include <stdbool.h>

typedef enum world_filter {
    WORLD_OPENSSH,  /* its list of allowed calls; files EACCES, madvise EINVAL, all else ends the process */
    WORLD_CHROMIUM, /* files, sockets and madvise EPERM, all else allowed */
    WORLD_MUTE,     /* EPERM for all but write and exit */
    WORLD_NOTHING,  /* EINVAL for everything */
    WORLD_FILTERS
} world_filter_t;

/* False: filters are not permitted here. */
bool world_sandbox(world_filter_t filter);

/* Makes a new directory the root; false: not permitted. `log`: with a socket at
 * /dev/log whose descriptor goes there. */
bool world_empty_root(int *log);

/* Removes that directory, which is still the root of whoever is in it. */
void world_remove_root(void);

#endif
