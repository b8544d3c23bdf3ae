/* A target for afl-fuzz: persistent, the input in shared memory. */
#include "layout.h"
#include "run.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifndef FUZZ_TARGET
#error "FUZZ_TARGET is the target's number"
#endif

__AFL_FUZZ_INIT();
__AFL_COVERAGE();

/* What a reset has to do depends on the run before. */
static void coverage(bool on)
{
    if (on)
        __AFL_COVERAGE_ON();
    else
        __AFL_COVERAGE_OFF();
}

/* The macros are AFL++'s. */
#pragma clang diagnostic ignored "-Wsign-conversion"
#pragma clang diagnostic ignored "-Wshorten-64-to-32"

/* AFL++'s runtime has a process between the fuzzer and this one, which this one stops for
 * after each input: four switches of processes, as long as many an input takes. Instead
 * this one answers the fuzzer by itself, with what that process would have said, while
 * that one waits for its end as it always does, and tells the fuzzer of it. So the
 * protocol is AFL++'s, which reads here: a command; the process's number; its status. */
#define COMMANDS 198 /* FORKSRV_FD of AFL++'s config.h */
#define ANSWERS 199
#define STOPPED (SIGSTOP << 8 | 0x7f) /* as waitpid gives it */
#ifndef INPUTS_MOST
#define INPUTS_MOST 100000u /* then a new process */
#endif

static int commands = -1, answers = -1;

/* Before __AFL_INIT, which closes the originals in this process. */
static void keep_pipes(void)
{
    commands = fcntl(COMMANDS, F_DUPFD_CLOEXEC, ANSWERS + 1);
    answers = fcntl(ANSWERS, F_DUPFD_CLOEXEC, ANSWERS + 1);
}

/* That process tells the fuzzer our number before it waits for us. An answer that came
 * earlier would be taken for the number, and the number for how an input ended; where
 * nobody can say whether it sleeps by now, it is left to answer. */
static bool number_is_told(void)
{
    char path[32], text[256];
    snprintf(path, sizeof path, "/proc/%d/stat", getppid());
    for (;; sched_yield()) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return false;
        ssize_t n = read(fd, text, sizeof text - 1);
        close(fd);
        text[n > 0 ? n : 0] = '\0';
        const char *name_end = strrchr(text, ')');
        if (name_end == NULL || strchr("RDS", name_end[1] == ' ' ? name_end[2] : 'X') == NULL)
            return false;
        if (name_end[2] == 'S')
            return true;
    }
}

/* The number that the next command is to be answered with comes along with the status. */
static bool next_input(void)
{
    int32_t answer[2] = {STOPPED, getpid()};
    uint32_t command;
    if (write(answers, answer, sizeof answer) != (ssize_t)sizeof answer || read(commands, &command, sizeof command) != (ssize_t)sizeof command)
        return false; /* the fuzzer has ended */

    return true;
}

static void run_shared_input(const unsigned char *input)
{
    int size = __AFL_FUZZ_TESTCASE_LEN;
    run_input(FUZZ_TARGET, input, size > 0 ? (size_t)size : 0);
}

int main(int argc, char **argv)
{
    (void)argc;
    layout_fix(argv);
    run_coverage = coverage;
    keep_pipes();
    __AFL_INIT();
    const unsigned char *input = __AFL_FUZZ_TESTCASE_BUF;
    bool piped = commands >= 0 && answers >= 0;
    while (__AFL_LOOP(INPUTS_MOST)) {
        run_shared_input(input);
        if (!piped || !number_is_told())
            continue;
        for (unsigned i = 1; i < INPUTS_MOST && next_input(); i++)
            run_shared_input(input);
        break;
    }
    return 0;
}
