/* Which options an input of target process asks for. */
#include "process/process.h"

#include <stdio.h>
#include <string.h>

typedef struct field {
    unsigned byte, shift, bits;
    const char *choice[8]; /* "": as the profile has it */
} field_t;

static const field_t fields[] = {
    {1, 0, 3, {"", "guarded_sample_rate=1", "guarded_sample_rate=2", "guarded_sample_rate=3:guarded_sample_seed=7", "guarded_sample_rate=0", "guarded_first=2",
               "guarded_first=0", "guarded_first_site=2"}},
    {1, 3, 2, {"", "guarded_precise=1", "guarded_slots=16", "guarded_max=512:guarded_min=9"}},
    {1, 5, 2, {"", "guarded_handler=on", "guarded_handler=off", "guarded_recover=1"}},
    {1, 7, 1, {"", "seed=5"}},
    {2, 0, 2, {"", "stacks=none", "stacks=fp", "stacks=unwind"}},
    {2, 2, 2, {"", "stacks_of=all", "stacks_of=all:stack_depth=3", "stack_depth=1"}},
    {2, 4, 2, {"", "mismatch=abort", "mismatch=report", "mismatch=ignore"}},
    {2, 6, 2, {"", "leaks=1", "leaks=0", "leaks=1:leak_signal=10"}},
    {3, 0, 2, {"", "report=json", "log_file=/dev/null", "syslog=1"}},
    {3, 2, 2, {"", "verbose=1", "verbose=2", "verbose=3"}},
    {3, 4, 2, {"", "foreign=report", "foreign=ignore", "show_stats=1"}},
    {3, 6, 2, {"", "seal=1", "fill=1", "no_such_option=1:purge_delay=x"}},
    {4, 0, 2, {"", "guard=mprotect", "purge_delay=0", "purge_delay=1"}},
    {4, 2, 2, {"", "alloc_cap=1m", "alloc_cap=1m:alloc_cap_abort=1", "realloc_moves=1"}},
    {4, 4, 2, {"", "quarantine_bytes=1m", "large_quarantine_bytes=1m", "large_keep_bytes=0:trap_from=64k"}},
    {4, 6, 2, {"", "guarded_bytes=16m", "log_fd=2", "guarded_slots=64:guarded_bytes=16m"}},
};

static bool has(const process_options_t *o, const char *text)
{
    return strstr(o->options, text) != NULL;
}

void process_options(process_options_t *out, const uint8_t *bytes, size_t size)
{
    static const char *const profiles[4] = {"secure", "hardened", "fuzz", "debug"};
    uint8_t header[PROCESS_HEADER] = {0};
    memcpy(header, bytes, size < sizeof header ? size : sizeof header);
    memset(out, 0, sizeof *out);
    unsigned profile = header[0] % 4;
    snprintf(out->profile, sizeof out->profile, "BULKHEAD_PROFILE=%s", profiles[profile]);
    size_t n = (size_t)snprintf(out->options, sizeof out->options, "BULKHEAD_OPTIONS=profile=%s", profiles[profile]);
    for (unsigned i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        const char *text = fields[i].choice[header[fields[i].byte] >> fields[i].shift & ((1u << fields[i].bits) - 1)];
        if (text[0] != '\0')
            n += (size_t)snprintf(out->options + n, sizeof out->options - n, ":%s", text);
    }
    bool few = has(out, "guarded_slots=") || has(out, "guarded_max=") || has(out, "guarded_bytes=");
    bool rate = has(out, "guarded_sample_rate=1");
    out->guards_all = !few && (rate || (profile == 2 && !has(out, "guarded_sample_rate=")));
    out->foreign_goes_on = has(out, "foreign=");
    out->recovers = has(out, "guarded_recover=1");
    out->has_cap = has(out, "alloc_cap=") || profile == 2;
    out->cap_aborts = has(out, "alloc_cap_abort=1");
    out->mismatch = has(out, "mismatch=report") ? 1 : has(out, "mismatch=abort") || (profile == 3 && !has(out, "mismatch=")) ? 0 : 2;
}
