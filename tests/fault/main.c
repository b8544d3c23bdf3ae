/* fault CASES: runs one group of cases; exit status 0 when all ended well. */
#include "cases.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    unsigned (*run)(void);
} groups[] = {
    {"startup", startup_cases}, {"startup-leak", startup_leak}, {"no-entropy", startup_no_entropy}, {"nth", cases_nth},
    {"from", cases_from},       {"random", cases_random},       {"locked", cases_locked},
};

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "child") == 0)
        return startup_child(argc, argv);
    inject_init();
    for (size_t i = 0; argc > 1 && i < sizeof groups / sizeof groups[0]; i++) {
        if (strcmp(argv[1], groups[i].name) == 0) {
            unsigned bad = groups[i].run();
            printf("%s: %u cases ended badly\n", argv[1], bad);
            return bad == 0 ? 0 : 1;
        }
    }
    fprintf(stderr, "usage: fault startup|startup-leak|no-entropy|nth|from|random|locked\n");
    return 2;
}
