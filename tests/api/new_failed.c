/* operator new without any C++ library in the process: nothrow forms return
 * NULL, a throwing form cannot return and ends the process after one line. */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

void *new_single(size_t size) __asm__("_Znwm");
void *new_array(size_t size) __asm__("_Znam");
void *new_aligned(size_t size, size_t alignment) __asm__("_ZnwmSt11align_val_t");
void *new_nothrow(size_t size, const void *tag) __asm__("_ZnwmRKSt9nothrow_t");
void *new_array_nothrow(size_t size, const void *tag) __asm__("_ZnamRKSt9nothrow_t");
void delete_single(void *p) __asm__("_ZdlPv");

static volatile size_t impossible = (size_t)PTRDIFF_MAX + 1;
static int failures;

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);                                    \
            failures++;                                                                                                \
        }                                                                                                              \
    } while (0)

static void do_nothing(int signal)
{
    (void)signal;
}

/* Runs form `which` in a child. Its handler for SIGABRT returns: that must not
 * save it. */
static void expect_end(int which)
{
    int fds[2];
    CHECK(pipe(fds) == 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(fds[1], 2);
        signal(SIGABRT, do_nothing);
        if (which == 0)
            new_single(impossible);
        else if (which == 1)
            new_array(impossible);
        else
            new_aligned(impossible, 64);
        _exit(0);
    }
    close(fds[1]);
    char text[512];
    size_t length = 0;
    ssize_t n;
    while ((n = read(fds[0], text + length, sizeof text - 1 - length)) > 0)
        length += (size_t)n;
    close(fds[0]);
    text[length] = '\0';
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CHECK(strncmp(text, "bulkhead: ERROR: new-failed: ", 29) == 0);
    CHECK(strstr(text, "(size 9223372036854775808)\n") != NULL);
}

int main(void)
{
    void *p = new_single(100);
    CHECK(p != NULL);
    delete_single(p);
    CHECK(new_nothrow(impossible, "") == NULL);
    CHECK(new_array_nothrow(impossible, "") == NULL);
    for (int which = 0; which < 3; which++)
        expect_end(which);
    printf("new_failed: %s\n", failures == 0 ? "ok" : "FAILED");
    return failures == 0 ? 0 : 1;
}
