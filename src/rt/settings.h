/* Settings that may change while the process runs, on OS pages of their own:
 * read-only but for the moment of a change, and for ever once sealed.
 *
 *   L1  after start-up the page is writable only between bhi_settings_open and
 *       bhi_settings_close, and from a close that the kernel refuses to the next
 *
 * Reading takes no lock and costs one load. Who changes one holds state->lock,
 * which a fork holds too: no child inherits a page left open. */
#ifndef BH_RT_SETTINGS_H
#define BH_RT_SETTINGS_H

#include "base/constants.h"
#include "bulkhead.h"
#include "os/signal.h"
#include "rt/options.h"

#include <stdatomic.h>
#include <unwind.h>

/* libgcc's _Unwind_Backtrace and _Unwind_GetIPInfo. */
typedef struct bhi_unwinder {
    _Unwind_Reason_Code (*backtrace)(_Unwind_Trace_Fn fun, void *arg);
    _Unwind_Ptr (*address_in)(struct _Unwind_Context *context, int *before);
} bhi_unwinder_t;

typedef struct bhi_settings {
    _Atomic(uintptr_t) deferred_fun; /* bh_deferred_free_fun, 0: none */
    _Atomic(uintptr_t) deferred_arg;
    _Atomic(uint32_t) purge_delay;   /* ms; the option, until bh_option_set */
    bh_report_fun *report_fun;       /* NULL: none */
    void *report_arg;
    bhi_unwinder_t unwinder;         /* found late; rt/stack.h */
    bhi_os_action_t segv_before;     /* what core/fault.c's handler replaced */
    bool has_file;                   /* report_file is open, and is this file: */
    int report_file;
    uint64_t file_identity[2];
    bool sealed;
    bool left_open;                  /* the page is writable; never true while it is not */
} bhi_settings_t;

typedef union bhi_settings_page {
    bhi_settings_t s;
    char whole_os_pages[(sizeof(bhi_settings_t) + BH_OS_PAGE_SIZE - 1) & ~(BH_OS_PAGE_SIZE - 1)];
} bhi_settings_page_t;

extern BH_HIDDEN bhi_settings_page_t bhi_settings_page;
#define bhi_settings (bhi_settings_page.s)

/* Start-up: the values of the options; then, as its last step, read-only. */
void bhi_settings_init(const bhi_options_t *options);
void bhi_settings_protect(void);

/* Around a change. False: sealed, or the kernel does not make the page writable;
 * then nothing may be changed and close must not be called. */
bool bhi_settings_open(void);
void bhi_settings_close(void);

/* From here on open fails. False: the kernel refused, and the page can still be
 * made writable by a change. */
bool bhi_settings_seal(void);

#endif
