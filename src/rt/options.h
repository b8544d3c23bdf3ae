/* Options from the environment, read once at start-up without libc's help. */
#ifndef BH_RT_OPTIONS_H
#define BH_RT_OPTIONS_H

#include "base/compiler.h"

/* guard=none only in builds that ask for it (debuggers, measuring). */
#ifdef BH_ALLOW_GUARD_NONE
#define BH_GUARD_WORDS "auto|madvise|mprotect|none"
#else
#define BH_GUARD_WORDS "auto|madvise|mprotect"
#endif

enum { BHI_GUARD_AUTO, BHI_GUARD_MADVISE, BHI_GUARD_MPROTECT, BHI_GUARD_NONE };
enum { BHI_REPORT_TEXT, BHI_REPORT_JSON };
#define BHI_LOG_FD_NONE UINT32_MAX
enum { BHI_FOREIGN_ABORT, BHI_FOREIGN_REPORT, BHI_FOREIGN_IGNORE };

/* purge_delay: milliseconds that an empty page's memory is kept for reuse;
 * 0 returns it at once. */
typedef struct bhi_options {
#define BH_OPTION(field, key, def, words) uint32_t field;
#include "rt/options.def"
#undef BH_OPTION
} bhi_options_t;

/* Defaults, then the environment; `env` NULL: defaults. An unknown key or value
 * of ours costs one warning line on standard error. */
void bhi_options_read(bhi_options_t *out, char *const *env);

/* The options one by one, for programs that ask by name. -1: there is none of
 * this name (in any case of letters). */
int bhi_options_find(const char *key);
uint32_t bhi_options_value(const bhi_options_t *options, int option);

/* The word for a value, not terminated, and its length; NULL: a number. */
const char *bhi_options_word(int option, uint32_t value, size_t *length);

/* False when the option does not accept this text. */
bool bhi_options_parse(int option, const char *text, uint32_t *value);

#endif
