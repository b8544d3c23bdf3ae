/* Options, read once at start-up without libc's help: the table, how values are
 * written, and reading them from all sources (options_read.c). */
#ifndef BH_RT_OPTIONS_H
#define BH_RT_OPTIONS_H

#include "base/constants.h"

/* In the order of their numbers; those that are built come first and are the
 * only ones accepted. */
typedef enum bhi_profile { BHI_PROFILE_SECURE, BHI_PROFILE_HARDENED, BHI_PROFILE_FUZZ, BHI_PROFILE_DEBUG } bhi_profile_t;
/* The others rest on the map, which a measuring build may have compiled out. */
#define BH_PROFILE_WORDS (BH_HARDEN_MAP ? "secure|hardened|fuzz|debug" : "secure")

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

enum { BHI_HANDLER_AUTO, BHI_HANDLER_ON, BHI_HANDLER_OFF };
enum { BHI_SIDE_RANDOM, BHI_SIDE_END, BHI_SIDE_START };
enum { BHI_STACKS_AUTO, BHI_STACKS_NONE, BHI_STACKS_FP, BHI_STACKS_UNWIND };
enum { BHI_STACKS_OF_GUARDED, BHI_STACKS_OF_ALL };
enum { BHI_MISMATCH_ABORT, BHI_MISMATCH_REPORT, BHI_MISMATCH_IGNORE };

#define BH_KIB(n) ((uint64_t)(n) << 10)
#define BH_MIB(n) ((uint64_t)(n) << 20)
#define BH_GIB(n) ((uint64_t)(n) << 30)
#define BH_ALLOC_CAP_LEAST BH_KIB(128) /* no path that hands out lists looks at the cap */
#define BH_ALLOC_CAP_NONE BH_GIB(1 << 26) /* more than an address space has */
#define BH_OPTION_TEXT 255

typedef enum bhi_option {
#define BH_OPTION(field, kind, words, least, most, secure, strict) BHI_OPTION_##field,
#include "rt/options.def"
#undef BH_OPTION
    BHI_OPTIONS
} bhi_option_t;

/* Who said an option's value; by default, the profile. */
typedef enum bhi_option_from { BHI_FROM_PROFILE, BHI_FROM_FILE, BHI_FROM_PROGRAM, BHI_FROM_ENVIRONMENT } bhi_option_from_t;

/* purge_delay: milliseconds that an empty page's memory is kept for reuse; 0
 * returns it at once. quarantine_bytes: for each size class of a heap;
 * large_quarantine_bytes: address space, for the process. large_keep_bytes: memory
 * that waits to be used again up to which that of freed large blocks is kept.
 * trap_from: blocks of so many bytes and more cannot be accessed from the moment they
 * are freed. seed: of all random choices; 0: the kernel's entropy. realloc_moves: in
 * all profiles but secure. alloc_cap: larger requests fail, or
 * with alloc_cap_abort end the process. guarded_*: harden/guarded.h, core/sampled.h;
 * stacks: rt/stack.h. stacks_of, fill, mismatch: core/traced.h; leaks, leak_signal:
 * core/leaks.h. */
typedef struct bhi_options {
#define BH_OPTION_FIELD_WORD(field) uint32_t field;
#define BH_OPTION_FIELD_NUMBER(field) uint32_t field;
#define BH_OPTION_FIELD_BYTES(field) uint64_t field;
#define BH_OPTION_FIELD_LOWER(field) uint64_t field;
#define BH_OPTION_FIELD_REPLAY(field) uint32_t field;
#define BH_OPTION_FIELD_STRING(field) char field[BH_OPTION_TEXT + 1];
#define BH_OPTION(field, kind, words, least, most, secure, strict) BH_OPTION_FIELD_##kind(field)
#include "rt/options.def"
#undef BH_OPTION
    uint8_t from[BHI_OPTIONS]; /* bhi_option_from_t */
} bhi_options_t;

/* ------------------------------------------------------------------- reading */

#define BH_CONFIGURATION_FILE "/etc/bulkhead.conf"
#define BH_OPTIONS_BYTES ((size_t)4096) /* most that is read of a file, or of a program's own options */

/* Where options come from; a later one overrides an earlier one. */
typedef struct bhi_option_sources {
    const char *file;    /* "key=value" lines; only if root's alone. NULL: none */
    const char *program; /* "key=value:key=value"; NULL: none */
    char *const *env;    /* BULKHEAD_OPTIONS, then single variables; NULL: not to be trusted */
} bhi_option_sources_t;

/* The profile that the sources name, its defaults, then what the sources say. An
 * unknown key or a malformed value costs one warning line on standard error. */
void bhi_options_read_from(bhi_options_t *out, const bhi_option_sources_t *from);

/* The same from the sources of this process: the configuration file, the
 * program's bh_program_options and the given environment. */
void bhi_options_read(bhi_options_t *out, char *const *env);

/* --------------------------------------------------------------- one by one */

/* Index of the option of this name, in any case of letters; -1: none. */
int bhi_options_find(const char *key, size_t length);
/* NULL: there are no more. */
const char *bhi_options_key(int option);

void bhi_options_defaults(bhi_options_t *out, bhi_profile_t profile);

/* False, and nothing changed, when the option does not accept this text in this
 * profile. */
bool bhi_options_assign(bhi_options_t *out, int option, bhi_profile_t profile, const char *text, size_t length);

/* What the option accepts, for a message. */
struct bhi_format;
void bhi_options_accepted(struct bhi_format *out, int option, bhi_profile_t profile);

/* The value as text; false: of no such form (a number is asked of a word or text). */
void bhi_options_text(struct bhi_format *out, const bhi_options_t *from, int option);
bool bhi_options_number(const bhi_options_t *from, int option, uint64_t *out);

/* Names each option that is set to less than the profile promises, one call
 * each, to `say`. */
void bhi_options_weaker(const bhi_options_t *options, void (*say)(const char *key, const char *effect));

#ifdef BH_TESTING
/* In place of BH_PROFILE_WORDS, for tests of profiles still to be built. */
extern BH_HIDDEN const char *bhi_options_profiles;
#endif

#endif
