/* Prints an input as a C program of its own, which makes the same calls with real
 * threads, one step at a time. Attacks on control data and true keys are only comments
 * there. The input is run to find out what each step does; if that is a finding, the
 * program ends with the call that was at hand. */
#include "run.h"

#include <stdio.h>
#include <stdlib.h>

#ifndef FUZZ_TARGET
#error "FUZZ_TARGET is the target's number"
#endif

static unsigned steps_begun;
static unsigned char thread_of[PROGRAM_STEPS_MOST + 1];

static const char head[] =
    "/* Build with: cc -pthread program.c -lbulkhead */\n"
    "#include <bulkhead.h>\n#include <pthread.h>\n#include <stdio.h>\n#include <string.h>\n\n"
    "static void *p[64];\nstatic bh_heap_t *h[3][4];\n\n";

static const char tail[] =
    "/* The steps in turn, each in its thread. */\n"
    "static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;\n"
    "static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;\n"
    "static unsigned now;\n\n"
    "static void *body(void *arg)\n{\n"
    "    unsigned self = (unsigned)(size_t)arg;\n"
    "    for (;;) {\n"
    "        pthread_mutex_lock(&lock);\n"
    "        while (steps[now].make != NULL && steps[now].thread != self)\n"
    "            pthread_cond_wait(&turn, &lock);\n"
    "        void (*make)(void) = steps[now].make;\n"
    "        pthread_mutex_unlock(&lock);\n"
    "        if (make == NULL)\n            return NULL;\n"
    "        make();\n"
    "        pthread_mutex_lock(&lock);\n"
    "        now++;\n"
    "        pthread_cond_broadcast(&turn);\n"
    "        int ends = steps[now - 1].ends;\n"
    "        pthread_mutex_unlock(&lock);\n"
    "        if (ends)\n            return NULL;\n"
    "    }\n}\n\n"
    "int main(void)\n{\n"
    "    pthread_t threads[3];\n"
    "    for (size_t i = 0; i < 3; i++)\n        pthread_create(&threads[i], NULL, body, (void *)i);\n"
    "    /* A thread that ends gets a successor. */\n"
    "    for (unsigned i = 0; steps[i].make != NULL; i++) {\n"
    "        if (!steps[i].ends)\n            continue;\n"
    "        pthread_join(threads[steps[i].thread], NULL);\n"
    "        pthread_create(&threads[steps[i].thread], NULL, body, (void *)(size_t)steps[i].thread);\n"
    "    }\n"
    "    for (size_t i = 0; i < 3; i++)\n        pthread_join(threads[i], NULL);\n"
    "    puts(\"returned\");\n    return 0;\n}\n";

static unsigned char ends[PROGRAM_STEPS_MOST + 1];

static void step(unsigned i, const char *op, unsigned thread)
{
    if (steps_begun > 0)
        puts("}\n");
    printf("static void step_%u(void) /* %s */\n{\n", i, op);
    thread_of[i] = (unsigned char)thread;
    steps_begun = i + 1;
    fflush(stdout);
}

static void line(const char *text)
{
    if (__builtin_strcmp(text, "pthread_exit(NULL);") == 0) {
        ends[steps_begun - 1] = 1; /* after the step: the thread returns */
        return;
    }
    printf("    %s\n", text);
    fflush(stdout);
}

/* Also when the run ends in a finding, which aborts. */
static void finish(void)
{
    if (steps_begun > 0)
        puts("}\n");
    printf("static const struct {\n    void (*make)(void);\n    unsigned thread;\n    int ends;\n} steps[] = {\n");
    for (unsigned i = 0; i < steps_begun; i++)
        printf("    {step_%u, %u, %u},\n", i, thread_of[i], ends[i]);
    printf("    {NULL, 0, 0},\n};\n\n%s", tail);
    fflush(stdout);
}

static void on_abort(void)
{
    finish();
}

int main(int argc, char **argv)
{
    static const run_trace_t trace = {step, line};
    static uint8_t input[64 * 1024];
    FILE *f = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (f == NULL) {
        fprintf(stderr, "usage: %s FILE\n", argv[0]);
        return 2;
    }
    size_t n = fread(input, 1, sizeof input, f);
    fclose(f);
    program_t program;
    program_read(&program, FUZZ_TARGET, input, n);
    printf("/* BULKHEAD_PROFILE=%s BULKHEAD_PURGE_DELAY=%u BULKHEAD_GUARD=%s */\n%s", program.hardened ? "hardened" : "secure",
           program.purge_delay, program.mprotect ? "mprotect" : "auto", head);
    run_trace = &trace;
    model_on_finding = on_abort;
    run_input(FUZZ_TARGET, input, n);
    finish();
    fprintf(stderr, "%s\n", run_verdict);
    return 0;
}
