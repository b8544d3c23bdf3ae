/* Runs inputs of target process, each in a process of its own, and judges how it ended:
 * a correct program ends by itself and is accused of nothing; one with a bug ends as its
 * bug deserves, or by itself where nothing is promised.
 *
 *   fuzz-replay-process [-v] FILE-OR-FOLDER...   or for afl-fuzz, without an argument */
#include "os/os.h"
#include "process/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define INPUT_MOST ((size_t)4096)
#define SAID_MOST ((size_t)64 * 1024)

static uint8_t input[INPUT_MOST];
static char said[SAID_MOST];
static process_options_t options;
static process_told_t *told;
static char *environment[3];
static bool verbose;
static unsigned long files;

/* What was covered, before an end that runs nothing. */
extern void __gcov_dump(void) __attribute__((weak));
_Noreturn void __wrap_bhi_os_abort(void);
_Noreturn void __real_bhi_os_abort(void);
void __wrap_bhi_os_start_info(bhi_os_start_t *out);
void __real_bhi_os_start_info(bhi_os_start_t *out);

void __wrap_bhi_os_abort(void)
{
    if (__gcov_dump != NULL)
        __gcov_dump();
    __real_bhi_os_abort();
}

/* The library reads the environment that the process was started with. */
void __wrap_bhi_os_start_info(bhi_os_start_t *out)
{
    __real_bhi_os_start_info(out);
    out->env = environment;
}

static void on_fault(int signal)
{
    (void)signal;
    __gcov_dump();
    _exit(7);
}

static void run_child(size_t size, int out)
{
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    dup2(out, 2);
    if (__gcov_dump != NULL)
        signal(SIGSEGV, on_fault); /* ours to run after the library's */
    process_start_library();
    process_run(&options, input, size, told);
}

_Noreturn static void finding(const char *what)
{
    fprintf(stderr, "fuzz: FINDING: step %u: %s\n%s %s\n%s\n", told->step, what, options.profile, options.options, said);
    const char *log = getenv("FUZZ_LOG");
    FILE *f = log != NULL ? fopen(log, "a") : NULL;
    if (f != NULL) {
        fprintf(f, "step %u: %s\n", told->step, what);
        fclose(f);
    }
    abort();
}

/* Each violation that was reported must be allowed; returns whether one was that must. */
static bool judge_reports(void)
{
    bool one = false;
    for (int id = 0; id < (int)BHI_VIOLATIONS; id++) {
        char line[128], object[128];
        snprintf(line, sizeof line, "bulkhead: ERROR: %s:", bhi_violation_id((bhi_violation_t)id));
        snprintf(object, sizeof object, "{\"bulkhead\":\"ERROR\",\"id\":\"%s\"", bhi_violation_id((bhi_violation_t)id));
        if (strstr(said, line) == NULL && strstr(said, object) == NULL)
            continue;
        if ((told->allowed >> id & 1) == 0)
            finding("a correct program is accused");
        one |= (told->must >> id & 1) != 0;
    }
    return one;
}

static void judge(int status)
{
    static char text[400];
    bool reported = judge_reports();
    if (strstr(said, "while reporting") != NULL)
        finding("a report failed");
    if (told->finding[0] != '\0')
        finding(told->finding);
    bool faulted = (WIFSIGNALED(status) && (WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGBUS)) || (WIFEXITED(status) && WEXITSTATUS(status) == 7);
    bool aborted = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
    if (faulted ? !told->touching : aborted ? told->allowed == 0 : !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        snprintf(text, sizeof text, "ended with status %#x", (unsigned)status);
        finding(text);
    }
    if (told->must != 0 && !reported && !faulted && strstr(options.options, "log_file") == NULL)
        finding("what was promised is not reported");
}

static void run_input(size_t size)
{
    int ends[2];
    process_options(&options, input, size);
    environment[0] = options.profile;
    environment[1] = options.options;
    memset(told, 0, sizeof *told);
    if (pipe(ends) != 0)
        exit(2);
    fcntl(ends[1], F_SETPIPE_SZ, SAID_MOST);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        run_child(size, ends[1]);
    }
    close(ends[1]);
    size_t length = 0;
    for (ssize_t n; (n = read(ends[0], said + length, sizeof said - 1 - length)) > 0;) {
        length += (size_t)n;
        if (length == sizeof said - 1) /* what else it says is read and forgotten */
            length = sizeof said / 2;
    }
    said[length] = '\0';
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    judge(status);
    if (verbose)
        printf("status %#x, %u steps%s%.60s\n", (unsigned)status, told->step, length != 0 ? ": " : "", said);
}

static void replay(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        perror(path);
        exit(2);
    }
    struct dirent **names;
    int n = S_ISDIR(st.st_mode) ? scandir(path, &names, NULL, alphasort) : 0;
    for (int i = 0; i < n; i++) {
        char inner[4096];
        snprintf(inner, sizeof inner, "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.')
            replay(inner);
        free(names[i]);
    }
    if (n > 0)
        free(names);
    FILE *f = S_ISDIR(st.st_mode) ? NULL : fopen(path, "rb");
    if (f == NULL)
        return;
    size_t size = fread(input, 1, sizeof input, f);
    fclose(f);
    if (verbose)
        printf("%s: ", path);
    fflush(stdout);
    run_input(size);
    files++;
}

#ifdef FUZZ_AFL
__AFL_FUZZ_INIT();
#pragma clang diagnostic ignored "-Wsign-conversion"
#pragma clang diagnostic ignored "-Wshorten-64-to-32"

static void fuzz(void)
{
    __AFL_INIT();
    const unsigned char *from = __AFL_FUZZ_TESTCASE_BUF;
    while (__AFL_LOOP(10000)) {
        int n = __AFL_FUZZ_TESTCASE_LEN;
        size_t size = n <= 0 ? 0 : (size_t)n < sizeof input ? (size_t)n : sizeof input;
        memcpy(input, from, size);
        run_input(size);
    }
}
#else
static void fuzz(void)
{
}
#endif

int main(int argc, char **argv)
{
    int i = 1;
    told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (told == MAP_FAILED)
        return 2;
    if (argc < 2) {
        fuzz();
        return 0;
    }
    if (strcmp(argv[1], "-v") == 0) {
        verbose = true;
        i++;
    }
    for (; i < argc; i++)
        replay(argv[i]);
    printf("process: %lu inputs replayed, no finding\n", files);
    return 0;
}
