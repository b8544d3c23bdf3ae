/* early PROGRAM: PROGRAM (resolver.c) allocates before glibc has set up the main
 * thread's thread-local variables. */
#include "support.h"

#include <sys/wait.h>

#define SECONDS 60

int main(int argc, char **argv)
{
    struct limits_child child;
    limits_begin();
    if (argc != 2)
        limits_broken("usage: early PROGRAM");
    char *run[] = {argv[1], NULL};
    limits_exec(&child, SECONDS, false, run);
    if (!WIFEXITED(child.status) || WEXITSTATUS(child.status) != 0)
        limits_skip("not even the system's allocator serves resolvers of indirect functions");
    limits_exec(&child, SECONDS, true, run);
    bool held = WIFEXITED(child.status) && WEXITSTATUS(child.status) == 0;
    limits_result(held, "early: a program that allocates in a resolver ends with status %#x (bound 0) %s", (unsigned)child.status, child.output);
    return limits_end();
}
