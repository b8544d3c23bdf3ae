#include "support.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static unsigned failures;

size_t limits_classes(size_t out[LIMITS_CLASSES_MAX])
{
    size_t n = 0;
    out[n++] = 8;
    for (size_t size = 16; size <= 128; size += 16)
        out[n++] = size;
    for (size_t power = 128; power < LIMITS_CLASS_MAX; power *= 2)
        for (size_t eighth = 1; eighth <= 8; eighth++)
            out[n++] = power + power / 8 * eighth;
    return n;
}

void limits_begin(void)
{
    static char buffer[4096];
    setvbuf(stdout, buffer, _IOLBF, sizeof buffer);
    if (getenv("LIMITS_ANY_ALLOCATOR") == NULL && dlsym(RTLD_DEFAULT, "bh_version") == NULL)
        limits_broken("this program does not run on Bulkhead (LD_PRELOAD it)");
}

void limits_result(bool held, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    puts(held ? "" : " FAIL");
    if (!held)
        failures++;
}

int limits_end(void)
{
    fflush(stdout);
    return failures == 0 ? 0 : 1;
}

_Noreturn void limits_broken(const char *format, ...)
{
    va_list args;
    fputs("test broken: ", stdout);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
    _exit(2);
}

_Noreturn void limits_skip(const char *reason)
{
    printf("skipped: %s\n", reason);
    fflush(stdout);
    _exit(LIMITS_SKIP);
}

/* Whole file into `text`, cut at its size. */
static bool slurp(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t length = 0;
    ssize_t n;
    while (length < size - 1 && (n = read(fd, text + length, size - 1 - length)) > 0)
        length += (size_t)n;
    text[length] = '\0';
    close(fd);
    return length > 0;
}

/* The value in KiB that follows "\nfield:" as bytes. */
static size_t field_bytes(const char *text, const char *field)
{
    size_t length = strlen(field);
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, field, length) == 0 && line[length] == ':')
            return strtoull(line + length + 1, NULL, 10) * KIB;
        if (*line == '\0')
            break;
    }
    limits_broken("no field %s in a file of /proc", field);
}

size_t limits_rss(void)
{
    char text[4096];
    /* The counters behind statm are kept per processor and lag; this one is
     * counted on the spot. */
    if (!slurp("/proc/self/smaps_rollup", text, sizeof text))
        return limits_status(0, "VmRSS");
    return field_bytes(text, "Rss");
}

size_t limits_status(pid_t pid, const char *field)
{
    char path[64];
    char text[8192];
    snprintf(path, sizeof path, "/proc/%ld/status", pid == 0 ? (long)getpid() : (long)pid);
    if (!slurp(path, text, sizeof text))
        limits_broken("cannot read %s", path);
    return field_bytes(text, field);
}

size_t limits_memory_available(void)
{
    char text[8192];
    if (!slurp("/proc/meminfo", text, sizeof text))
        limits_broken("cannot read /proc/meminfo");
    return field_bytes(text, "MemAvailable");
}

size_t limits_mappings(void)
{
    static char chunk[65536];
    size_t lines = 0;
    ssize_t n;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        limits_broken("cannot read /proc/self/maps");
    while ((n = read(fd, chunk, sizeof chunk)) > 0)
        for (ssize_t i = 0; i < n; i++)
            lines += chunk[i] == '\n';
    close(fd);
    return lines;
}

size_t limits_os_page(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

uint64_t limits_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

void *limits_table(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED)
        limits_broken("no memory for a table of %zu bytes", bytes);
    return p;
}

uint64_t limits_seed(void)
{
    const char *given = getenv("LIMITS_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : limits_now_ns();
    printf("seed %#llx\n", (unsigned long long)seed);
    return seed;
}

const char *limits_self(void)
{
    static char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0)
        limits_broken("cannot read /proc/self/exe");
    path[n] = '\0';
    return path;
}

static void collect(struct limits_child *child, pid_t pid, int fd)
{
    size_t length = 0;
    char lost[256];
    for (;;) {
        bool room = length < sizeof child->output - 1;
        ssize_t n = room ? read(fd, child->output + length, sizeof child->output - 1 - length)
                         : read(fd, lost, sizeof lost);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        if (room)
            length += (size_t)n;
    }
    child->output[length] = '\0';
    close(fd);
    while (waitpid(pid, &child->status, 0) < 0)
        if (errno != EINTR)
            limits_broken("waitpid: errno %d", errno);
}

/* Forks with standard output and error on a pipe; in the child returns 0. */
static pid_t fork_piped(unsigned seconds, int *out)
{
    int fd[2];
    fflush(stdout);
    if (pipe(fd) != 0)
        limits_broken("pipe: errno %d", errno);
    pid_t pid = fork();
    if (pid < 0)
        limits_broken("fork: errno %d", errno);
    if (pid > 0) {
        close(fd[1]);
        *out = fd[0];
        return pid;
    }
    dup2(fd[1], STDOUT_FILENO);
    dup2(fd[1], STDERR_FILENO);
    close(fd[0]);
    close(fd[1]);
    alarm(seconds);
    return 0;
}

void limits_fork(struct limits_child *child, unsigned seconds, void (*body)(void *), void *arg)
{
    int fd;
    pid_t pid = fork_piped(seconds, &fd);
    if (pid == 0) {
        body(arg);
        fflush(stdout);
        _exit(0);
    }
    collect(child, pid, fd);
}

void limits_exec(struct limits_child *child, unsigned seconds, bool preload, char *const argv[])
{
    int fd;
    pid_t pid = fork_piped(seconds, &fd);
    if (pid == 0) {
        if (!preload) {
            unsetenv("LD_PRELOAD");
            setenv("LIMITS_ANY_ALLOCATOR", "1", 1);
        }
        execv(argv[0], argv);
        _exit(127);
    }
    collect(child, pid, fd);
}
