/* Settings that may change while the process runs, on a page of their own that is
 * read-only but while they change: what a report calls or writes to is nothing
 * that an overflow could set. */
#ifndef BH_RT_SETTINGS_H
#define BH_RT_SETTINGS_H

#include "base/constants.h"
#include "bulkhead.h"

typedef struct bhi_settings {
    bh_report_fun *report_fun; /* NULL: none */
    void *report_arg;
    bool has_file;             /* report_file is open, and is this file: */
    int report_file;
    uint64_t file_identity[2];
} bhi_settings_t;

typedef union bhi_settings_page {
    bhi_settings_t s;
    char whole_os_pages[(sizeof(bhi_settings_t) + BH_OS_PAGE_SIZE - 1) & ~(BH_OS_PAGE_SIZE - 1)];
} bhi_settings_page_t;

extern BH_HIDDEN bhi_settings_page_t bhi_settings_page;
#define bhi_settings (bhi_settings_page.s)

/* Replaces all of them. False, and nothing has changed: the kernel refuses. The
 * caller sees to it that there is one at a time. The last call of start-up, or any
 * later one, makes the page read-only. */
bool bhi_settings_change(const bhi_settings_t *to);

#endif
