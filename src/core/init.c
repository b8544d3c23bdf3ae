/* Start-up. Uses raw system calls, libsodium's stream, and from libc only
 * getauxval and pthread_key_create, which need no constructor. */
#include "core/init.h"

#include "core/alloc.h"
#include "core/describe.h"
#include "core/fault.h"
#include "core/hardened.h"
#include "core/free.h"
#include "core/leaks.h"
#include "core/thread.h"
#include "core/traced.h"
#include "harden/canary.h"
#include "harden/guard.h"
#include "harden/spread.h"
#include "harden/wipe.h"
#include "meta/arena.h"
#include "os/os.h"
#include "rt/stack.h"
#include "rt/format.h"
#include "rt/settings.h"
#include "rt/sink.h"
#include "rt/violation.h"

#include <string.h>

static bhi_lock_t init_lock;

static void say(const char *what, const char *value)
{
    bhi_format_t line;
    bhi_format_start(&line);
    bhi_format_text(&line, "bulkhead: ");
    bhi_format_text(&line, what);
    bhi_format_text(&line, value);
    bhi_format_text(&line, "\n");
    bhi_os_write(2, line.text, line.length);
}

static void say_option(const char *key)
{
    bhi_format_t line;
    bhi_format_start(&line);
    bhi_format_text(&line, "bulkhead: ");
    bhi_format_text(&line, key);
    bhi_format_text(&line, "=");
    bhi_options_text(&line, &bhi_process.options, bhi_options_find(key, strlen(key)));
    bhi_format_text(&line, "\n");
    bhi_os_write(2, line.text, line.length);
}

static void say_weaker(const char *key, const char *effect)
{
    (void)key;
    say("weaker than the default: ", effect);
}

/* Each option as it is in force, and who said so. */
static void say_options(void)
{
    static const char *const from[] = {" (profile)\n", " (" BH_CONFIGURATION_FILE ")\n", " (program)\n", " (environment)\n"};
    for (int i = 0; i < (int)BHI_OPTIONS; i++) {
        bhi_format_t line;
        bhi_format_start(&line);
        bhi_format_text(&line, "bulkhead: option ");
        bhi_format_text(&line, bhi_options_key(i));
        bhi_format_text(&line, "=");
        bhi_options_text(&line, &bhi_process.options, i);
        bhi_format_text(&line, from[bhi_process.options.from[i]]);
        bhi_os_write(2, line.text, line.length);
    }
}

static void say_settings(void)
{
    say_option("profile");
    say("guards=", bhi_process.guards_by_madvise ? "guard regions" : "mprotect");
    say_option("foreign");
    if (bhi_process.sampling) {
        say_option("guarded_sample_rate");
        say_option("guarded_first");
    }
    bhi_options_weaker(&bhi_process.options, say_weaker);
    if (bhi_process.options.verbose > 1)
        say_options();
}

/* From here on read-only; sealed, so that nothing makes it writable again. */
static void protect_settings(void)
{
    if (BH_HARDEN_SETTINGS && bhi_os_protect_read((uintptr_t)&bhi_process_page, sizeof bhi_process_page) == 0)
        bhi_os_seal((uintptr_t)&bhi_process_page, sizeof bhi_process_page);
    bhi_settings_protect();
    if (bhi_process.options.seal != 0)
        bhi_settings_seal();
}

static bool start(void)
{
    bhi_os_start_t info;
    bhi_os_start_info(&info);
    if (info.page_size > BH_OS_PAGE_SIZE)
        bhi_violation(BHI_UNSUPPORTED_SYSTEM, info.page_size);
    bhi_options_read(&bhi_process.options, info.secure ? NULL : info.env);
    bhi_random_root_t root;
    if (!bhi_random_init_root(&root, info.at_random))
        bhi_violation(BHI_NO_ENTROPY, 0);
    bhi_settings_init(&bhi_process.options);
    bhi_canary_init(&root.state);
    if (!bhi_arena_init(&root))
        return false;
    bhi_guard_init();
    bhi_process.has_avx2 = bhi_wipe_knows_avx2();
    bhi_process.has_compress = bhi_spread_knows_compress();
    bhi_stack_init(info.program_headers);
    bhi_guarded_init();
    bhi_traced_init();
    bhi_process.short_ways = bhi_hard_has_short_ways();
    bhi_fault_init();
    bhi_leaks_init();
    bhi_thread_init();
    bhi_process.describe = bhi_describe;
    bhi_process.ready = true;
    if (bhi_process.options.verbose != 0)
        say_settings();
    if (bhi_process.options.log_file[0] != '\0')
        bhi_report_open_file(bhi_process.options.log_file);
    protect_settings();
    return true;
}

static _Atomic(bool) done;

bool bhi_init(void)
{
    if (atomic_load_explicit(&done, memory_order_acquire))
        return true;
    bhi_lock_take(&init_lock);
    bool ok = atomic_load_explicit(&done, memory_order_relaxed) || start();
    atomic_store_explicit(&done, ok, memory_order_release);
    bhi_lock_give(&init_lock);
    return ok;
}

/* A fork server forks before the program has allocated: what the first block needs is
 * better made once than in each child. */
static void warm_up(void)
{
    if (bhi_process.options.profile == BHI_PROFILE_FUZZ)
        bhi_free(bhi_alloc(bhi_thread_heap, BH_OS_PAGE_SIZE));
}

/* Handlers are registered once, when libc is up; a fork before any constructor
 * has no other thread to fear. */
__attribute__((constructor(101))) static void constructor(void)
{
    if (bhi_init()) {
        bhi_thread_init_fork();
        warm_up();
    }
}

/* Without a priority: in a static program the compiler's own start-up code, which tells
 * libgcc of the program's frames and at the end takes them away, stands before these. */
__attribute__((constructor)) static void constructor_late(void)
{
    bhi_stack_libc_up(true);
}

__attribute__((destructor)) static void destructor_early(void)
{
    if (!bhi_process.is_object)
        bhi_stack_libc_up(false);
}
