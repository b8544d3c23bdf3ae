/* Runs one program: resets the allocator, makes the program's steps, judges how it
 * ended, and looks at what is left. */
#include "run.h"

#include "core/describe.h"
#include "rt/report.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "invariants.h"

#define LOOKS 4u
#define SEGMENTS_MOST 64u /* to which all invariants are looked at, within microseconds */

const char *run_verdict = "returned";
const run_trace_t *run_trace;
void (*run_coverage)(bool on);

void run_reset(const window_start_t *start)
{
    if (run_coverage != NULL)
        run_coverage(false);
    window_reset(start);
    if (run_coverage != NULL)
        run_coverage(true);
}

void run_say(const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    run_trace->line(text);
}

/* Memory whose guards the window keeps (window/soft.c) is quicker. FUZZ_SOFT=0: the kernel
 * keeps all of them. */
static bool soft_wanted(void)
{
    static int wanted = -1;
    if (wanted < 0) {
        const char *said = getenv("FUZZ_SOFT");
        wanted = said == NULL || strcmp(said, "0") != 0;
    }
    return wanted != 0;
}

static void start(const program_t *program)
{
    static bhi_options_t options;
    window_options(&options, program->hardened ? BHI_PROFILE_HARDENED : BHI_PROFILE_SECURE);
    options.purge_delay = program->purge_delay;
    options.guard = program->mprotect ? BHI_GUARD_MPROTECT : BHI_GUARD_AUTO;
    bool cold = program->cold || program->mprotect;
    bool soft = soft_wanted() && program->target == TARGET_API;
    run_reset(&(window_start_t){.seed = program->seed, .options = &options, .cold = cold, .plain = program->plain, .soft = soft});
    model_begin(program->hardened, &(places_t){window_is_inside, window_is_open, window_is_closed, window_fills, window_fills_behind, window_copied});
    static int strict = -1;
    if (strict < 0)
        strict = getenv("FUZZ_STRICT") != NULL;
    model.strict = strict != 0;
    memset(&run, 0, sizeof run);
    run.program = *program;
    run.busy = PLACES;
}

static void check_invariants(void)
{
    if (!run.program.look || model.control || model.scribbled || window_segments() > SEGMENTS_MOST)
        return;
    const char *broken = inv_all(false, false);
    if (broken != NULL)
        finding("invariant: %s", broken);
}

static void make(const step_t *s)
{
    switch (s->op) {
    case OP_OVERFLOW:
    case OP_UNDERFLOW:
    case OP_STALE_WRITE:
    case OP_COPY:
    case OP_REPLAY:
    case OP_FORGE: run_attack(s); break;
    case OP_HEAP_NEW:
    case OP_HEAP_ALLOC:
    case OP_HEAP_REALLOC:
    case OP_HEAP_END:
    case OP_EXIT: run_life(s); break;
    case OP_BAD_FREE:
    case OP_BAD_HEAP: run_bad(s); break;
    case OP_FLIP:
    case OP_WORD:
    case OP_SWAP: run_control(s); break;
    default: run_api(s); break;
    }
}

/* Blocks as the program left them, and that nothing bad went unseen. */
static void finish(void)
{
    for (unsigned i = 0; i < PLACES; i++) {
        if (model.block[i].state == BLOCK_LIVE)
            model_check_contents(&model.block[i]);
    }
    check_invariants();
    if (!model.hardened || !model.scribbled || model.control)
        return;
    for (unsigned t = 0; t < WINDOW_CONTEXTS; t++) {
        run_switch(t);
        run_regain_heap();
        bh_verify();
    }
    uintptr_t missed = model_missed(0, UINTPTR_MAX, run_has_page);
    if (missed != 0)
        finding("%#zx was changed outside of every block, and nobody noticed", missed);
    missed = model_lost(run_has_page);
    if (missed != 0)
        finding("%#zx was changed outside of every block, and its page ended unseen", missed);
}

static void steps(const program_t *program)
{
    size_t apart = 1 + program->steps / LOOKS; /* all invariants cost as much as some dozen steps */
    for (size_t i = 0; i < program->steps; i++) {
        step_t s;
        program_step(program, i, &s);
        model.step = (uint32_t)i;
        if (program->target == TARGET_API)
            run_bound_late();
        if (run_trace != NULL)
            run_trace->step((unsigned)i, program_op_name(s.op), window_context());
        make(&s);
        if (program->every_step && i % apart == 0)
            check_invariants();
    }
    model.step = (uint32_t)program->steps;
    finish();
}

/* A report of the violation must never fail, least of all on damaged data. */
static void report(int id, uintptr_t address)
{
    static bh_report_t r;
    static bhi_report_text_t text;
    if (sigsetjmp(window_end.at, 0) != 0)
        finding("the report of %s at %#zx ended with %s at %#zx", window_end_id(id), address, window_end_id(window_end.id), window_end.address);
    memset(&r, 0, sizeof r);
    r.struct_size = sizeof r;
    r.id = window_end_id(id);
    r.text = "";
    r.address = (const void *)address; /* NOLINT */
    r.size_class = r.slot = r.heap = -1;
    bhi_describe(&r);
    text.length = 0;
    bhi_report_details(&r, &text);
    bhi_report_json(&r, &text);
}

static void judge(int id, uintptr_t address)
{
    if (run.must != 0) {
        if (id >= BHI_VIOLATIONS || (run.must >> id & 1) == 0)
            finding("%s at %#zx, and one of %#lx was promised", window_end_id(id), address, (unsigned long)run.must);
    } else if (id == WINDOW_STRAY && model.strict) {
        finding("the kernel was to change memory at %#zx, which is not the allocator's", address);
    } else if (id == WINDOW_FAULT && !model.control) {
        if (!run.attacking || address < run.attack_from || address >= run.attack_to)
            finding("a fault at %#zx", address);
    } else if (id >= BHI_VIOLATIONS ? !model.control : (model.allowed >> id & 1) == 0) {
        finding("a correct program is accused: %s at %#zx", window_end_id(id), address);
    }
}

static void run_program(const program_t *program)
{
    start(program);
    if (sigsetjmp(window_end.at, 0) == 0) {
        window_end.armed = true;
        steps(program);
        run_verdict = "returned";
    } else {
        int id = window_end.id;
        uintptr_t address = window_end.address;
        judge(id, address);
        if (model.control || program->every_step)
            report(id, address);
        run_verdict = window_end_id(id);
    }
    window_end.armed = false;
}

void run_input(target_t target, const uint8_t *bytes, size_t size)
{
    if (target < TARGET_PROGRAMS) {
        program_t program;
        program_read(&program, target, bytes, size);
        run_program(&program);
    } else if (target == TARGET_OPTIONS) {
        run_options(bytes, size);
    } else {
        run_report(bytes, size);
    }
}
