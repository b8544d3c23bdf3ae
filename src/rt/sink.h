/* Where reports go: standard error always, and what the options name. */
#ifndef BH_RT_SINK_H
#define BH_RT_SINK_H

#include "base/compiler.h"

/* Every sink in turn; what cannot be written is lost. Each line is a datagram of
 * its own to the system log. No allocation, no lock; async-signal-safe. */
void bhi_sink_write(const char *text, size_t length);

/* Opens a log file for reports, at start-up or later, one caller at a time. False:
 * it cannot be opened, or the settings cannot be changed. */
bool bhi_report_open_file(const char *path);

#endif
