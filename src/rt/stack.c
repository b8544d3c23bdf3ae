/* Walking stacks; see stack.h. */
#include "rt/stack.h"

#include "os/os.h"
#include "rt/process.h"
#include "rt/settings.h"

#include <unwind.h>

#if defined(__GLIBC__)
#if __GLIBC_PREREQ(2, 35)
#define HAS_FIND_OBJECT
#endif
#endif
#ifdef HAS_FIND_OBJECT
#include <dlfcn.h>
extern __typeof__(_dl_find_object) _dl_find_object __attribute__((weak));
#define FINDS_OBJECTS (_dl_find_object != NULL)
#else
#define FINDS_OBJECTS false
#endif

#define FRAME_MOST ((uintptr_t)1 << 20) /* a caller's frame that lies further away is taken for chance */
/* Up to this rate whoever asks for guarded blocks hunts a bug: option stacks=auto
 * unwinds. Above, two stacks of 15,000 instructions each would cost more than all
 * the rest of sampling, and a library would be loaded for it. */
#define HUNTING 1000u
#define UNWINDER_CALLERS 6u
#define UNWINDER_REACH ((uintptr_t)32768) /* libgcc's unwinder and its tables' reader are 20 KiB */
#define READ_STEP 4096u                 /* OS pages are no smaller */

extern __typeof__(_Unwind_Backtrace) _Unwind_Backtrace __attribute__((weak));
extern __typeof__(_Unwind_GetIPInfo) _Unwind_GetIPInfo __attribute__((weak));

/* Of the object that this code is part of; the program itself when linked in. */
extern const char own_start[] __asm__("__ehdr_start") BH_HIDDEN;
extern const char own_text_end[] __asm__("etext") __attribute__((weak, visibility("hidden")));
extern void *__libc_stack_end __attribute__((weak));

static BH_THREAD_LOCAL bool busy;

/* Before, the unwinder does not find its tables, and in a static program ends the
 * process for that. Writable for good reason: it only decides what a stack looks like. */
static bool libc_up;

void bhi_stack_libc_up(bool up)
{
    libc_up = up;
}

bool bhi_stack_busy(void)
{
    return busy;
}

static bhi_unwinder_t unwinder(void)
{
    bhi_unwinder_t linked = {_Unwind_Backtrace, _Unwind_GetIPInfo};
    return bhi_settings.unwinder.backtrace != NULL ? bhi_settings.unwinder : linked;
}

static bool unwinds(void)
{
    return bhi_process.options.stacks == BHI_STACKS_UNWIND && libc_up && unwinder().backtrace != NULL;
}

bool bhi_stack_wants_unwinder(void)
{
    return bhi_process.options.stacks == BHI_STACKS_UNWIND && bhi_process.depot != NULL && !unwinds();
}

void bhi_stack_set_unwinder(const bhi_unwinder_t *unwinder_found)
{
    if (bhi_settings_open()) {
        bhi_settings.unwinder = *unwinder_found;
        bhi_settings_close();
    }
}

void bhi_stack_init(uintptr_t program_headers)
{
    bhi_options_t *o = &bhi_process.options;
    if (o->stacks == BHI_STACKS_AUTO)
        o->stacks = o->guarded_sample_rate - 1 < HUNTING || o->stacks_of == BHI_STACKS_OF_ALL ? BHI_STACKS_UNWIND : BHI_STACKS_FP;
    bhi_process.is_object = own_text_end == NULL || program_headers - (uintptr_t)own_start >= (uintptr_t)(own_text_end - own_start);
}

/* ------------------------------------------------------------------- unwinder */

typedef struct walk {
    uintptr_t *out;
    unsigned n, most;
    uintptr_t from; /* frames before this address's are left out; 0: those of this library */
    bool started;
    bhi_unwinder_t unwinder;
} walk_t;

/* Code of this library, as long as that is not all of the program. */
static bool is_own(uintptr_t pc)
{
    return own_text_end != NULL && bhi_process.is_object && pc - (uintptr_t)own_start < (uintptr_t)(own_text_end - own_start);
}

/* Whether a frame, and so all behind it, is wanted. */
BH_INLINE bool is_wanted(walk_t *w, uintptr_t pc)
{
    if (!w->started)
        w->started = w->from == 0 ? !is_own(pc) : pc == w->from;
    return w->started;
}

static _Unwind_Reason_Code visit(struct _Unwind_Context *context, void *arg)
{
    walk_t *w = arg;
    int before = 0;
    uintptr_t pc = w->unwinder.address_in(context, &before);
    if (pc == 0 || w->n >= w->most)
        return _URC_END_OF_STACK;
    pc -= before == 0;
    if (is_wanted(w, pc))
        w->out[w->n++] = pc;
    return _URC_NO_REASON;
}

/* ------------------------------------------------------------- frame pointers */

/* The highest address that this thread's stack may have: glibc keeps a thread's
 * own data at the top of its stack, but for the first thread's. */
static uintptr_t top_of(uintptr_t stack)
{
    uintptr_t own = (uintptr_t)&busy;
    if (own > stack && own - stack < (uintptr_t)1 << 32)
        return own;
    uintptr_t end = &__libc_stack_end != NULL ? (uintptr_t)__libc_stack_end : 0;
    return end > stack ? end : UINTPTR_MAX;
}

/* Whether two words at `frame` can be read: the caller's frame pointer, then the address to
 * return to. `known`: an address in an OS page that can, or 0; it may move there. */
static BH_NOINLINE bool ask(uintptr_t frame, uintptr_t *known)
{
    uintptr_t last = frame + sizeof(uintptr_t);
    if ((frame ^ last) / READ_STEP != 0 && !bhi_os_readable(last))
        return false;
    if ((frame ^ *known) / READ_STEP == 0)
        return true;
    *known = frame;
    return bhi_os_readable(frame);
}

BH_INLINE bool can_read(uintptr_t frame, uintptr_t *known)
{
    uintptr_t from = frame ^ *known, to = (frame + sizeof(uintptr_t)) ^ *known;
    if (bh_likely((from | to) < READ_STEP))
        return true;
    uintptr_t at = *known;
    bool can = ask(frame, &at);
    *known = at;
    return can;
}

/* Frames are others' memory to a sanitizer. */
#if defined(__clang__)
#define UNCHECKED_HERE __attribute__((no_sanitize("address", "thread")))
#else
#define UNCHECKED_HERE __attribute__((no_sanitize_address, no_sanitize_thread))
#endif
#define UNCHECKED BH_NOINLINE UNCHECKED_HERE

/* `known`: see can_read. */
BH_INLINE UNCHECKED_HERE void chain(walk_t *w, uintptr_t frame, uintptr_t stack, uintptr_t known)
{
    uintptr_t last = top_of(stack) - 2 * sizeof(uintptr_t), at = stack, *out = w->out + w->n, *end = w->out + w->most;
    /* Below `at` the difference is a large number. */
    while (out < end && frame - at < FRAME_MOST && frame < last && frame % sizeof(uintptr_t) == 0 && can_read(frame, &known)) {
        const volatile uintptr_t *link = (const volatile uintptr_t *)frame; /* NOLINT: a frame is found by number */
        uintptr_t back = link[1];
        if (back < READ_STEP)
            break;
        if (is_wanted(w, back - 1))
            *out++ = back - 1;
        at = frame + 1;
        frame = link[0];
    }
    w->n = (unsigned)(out - w->out);
}

UNCHECKED static void follow(walk_t *w, uintptr_t frame, uintptr_t stack, uintptr_t known)
{
    chain(w, frame, stack, known);
}

/* The frame that returns to the caller outside this library, from one of the library's
 * own on: these have frame pointers all, and are this thread's, so they are not looked at
 * as closely as others. 0: they lead nowhere. */
BH_INLINE UNCHECKED_HERE uintptr_t past_own(uintptr_t frame)
{
    if (!bhi_process.is_object || own_text_end == NULL)
        return frame;
    uintptr_t start = (uintptr_t)own_start, size = (uintptr_t)own_text_end - start;
    const volatile uintptr_t *link = (const volatile uintptr_t *)frame; /* NOLINT */
    while (link[1] - 1 - start < size) {
        uintptr_t next = link[0];
        if (next <= (uintptr_t)link)
            return 0;
        link = (const volatile uintptr_t *)next; /* NOLINT */
    }
    return (uintptr_t)link;
}

/* ------------------------------------------------------------------ the calls */

/* Whether the caller is the unwinder itself, which allocates and frees under a lock of
 * its own: where frames are registered with it (in static programs all are, elsewhere
 * those of compilers at run time) it would wait for itself. Told by how far its code is
 * from one of its functions. */
static bool is_for_unwinder(uintptr_t frame)
{
    uintptr_t pc[UNWINDER_CALLERS], middle = (uintptr_t)unwinder().backtrace;
    walk_t w = {pc, 0, UNWINDER_CALLERS, 0, true, unwinder()};
    follow(&w, frame, frame, frame);
    for (unsigned i = 0; i < w.n; i++) {
        if (pc[i] - (middle - UNWINDER_REACH) < 2 * UNWINDER_REACH)
            return true;
    }
    return false;
}

static unsigned depth(unsigned most)
{
    unsigned wanted = bhi_process.options.stack_depth;
    return wanted < most ? wanted : most;
}

static BH_NOINLINE unsigned unwind(uintptr_t *out, unsigned most)
{
    walk_t w = {.out = out, .most = most, .unwinder = unwinder()};
    busy = true;
    w.unwinder.backtrace(visit, &w);
    busy = false;
    return w.n;
}

UNCHECKED unsigned bhi_stack_here(uintptr_t *out, unsigned most)
{
    if (bhi_process.options.stacks == BHI_STACKS_NONE || busy)
        return 0;
    uintptr_t frame = (uintptr_t)__builtin_frame_address(0);
    if (unwinds() && !is_for_unwinder(frame))
        return unwind(out, depth(most));
    walk_t w = {.out = out, .most = depth(most), .started = true};
    frame = past_own(frame);
    if (frame != 0)
        chain(&w, frame, frame, frame);
    return w.n;
}

unsigned bhi_stack_of_fault(const bhi_registers_t *at, uintptr_t *out, unsigned most)
{
    walk_t w = {out, 0, depth(most), at->pc, false, unwinder()};
    if (unwinds() && FINDS_OBJECTS && !busy) {
        busy = true;
        w.unwinder.backtrace(visit, &w);
        busy = false;
    }
    if (w.n == 0 && most > 0) { /* none of it: not even the handler's frames led there */
        out[w.n++] = at->pc;
        w.started = true;
        if (bhi_process.options.stacks != BHI_STACKS_NONE)
            follow(&w, at->frame, at->stack, 0);
    }
    return w.n;
}

/* -------------------------------------------------------------------- modules */

#ifdef HAS_FIND_OBJECT
#include <elf.h>
#include <link.h>

/* The note is in a segment that is mapped with the object's first ones. */
static void find_build_id(const struct dl_find_object *o, bhi_module_t *out)
{
    const ElfW(Ehdr) *head = o->dlfo_map_start;
    uintptr_t base = o->dlfo_link_map->l_addr, end = (uintptr_t)o->dlfo_map_end;
    if (!bhi_os_readable((uintptr_t)head) || head->e_ident[0] != ELFMAG0 || head->e_ident[1] != ELFMAG1)
        return;
    const ElfW(Phdr) *segment = (const void *)((const char *)head + head->e_phoff);
    for (unsigned i = 0; i < head->e_phnum; i++, segment++) {
        uintptr_t at = base + segment->p_vaddr, stop = at + segment->p_memsz;
        if (segment->p_type != PT_NOTE || at < (uintptr_t)head || stop > end)
            continue;
        while (at + sizeof(ElfW(Nhdr)) <= stop) {
            const ElfW(Nhdr) *note = (const void *)at; /* NOLINT */
            const char *name = (const char *)(note + 1);
            uintptr_t id = (uintptr_t)name + ((note->n_namesz + 3u) & ~3u);
            at = id + ((note->n_descsz + 3u) & ~3u);
            if (note->n_type != NT_GNU_BUILD_ID || note->n_namesz != 4 || name[0] != 'G' || name[1] != 'N' || at > stop)
                continue;
            out->build_id_length = note->n_descsz < BHI_BUILD_ID_MOST ? note->n_descsz : BHI_BUILD_ID_MOST;
            for (unsigned b = 0; b < out->build_id_length; b++)
                out->build_id[b] = ((const unsigned char *)id)[b]; /* NOLINT */
            return;
        }
    }
}

bool bhi_module_find(uintptr_t address, bhi_module_t *out)
{
    struct dl_find_object o;
    if (!FINDS_OBJECTS || _dl_find_object((void *)address, &o) != 0) /* NOLINT: an address, as a pointer */
        return false;
    out->name = o.dlfo_link_map->l_name != NULL ? o.dlfo_link_map->l_name : "";
    out->offset = address - o.dlfo_link_map->l_addr;
    out->build_id_length = 0;
    find_build_id(&o, out);
    return true;
}
#else
bool bhi_module_find(uintptr_t address, bhi_module_t *out)
{
    (void)address;
    (void)out;
    return false;
}
#endif
