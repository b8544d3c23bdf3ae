/* Running and judging attacks by rows. */
#include "rows.h"

#include "child.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

static const char *lacks(const attack_row_t *row, const attack_end_t *end)
{
    for (int i = 0; i < ATTACK_SAYS; i++) {
        if (row->says[i] != NULL && strstr(end->text, row->says[i]) == NULL)
            return row->says[i];
    }
    return NULL;
}

static const char *wrong_with(const attack_row_t *row, const attack_end_t *end)
{
    char first[96], address[40];
    if (end->count == 0)
        return "it ended before the bug";
    if (row->signal == 0) {
        if (!WIFEXITED(end->status) || WEXITSTATUS(end->status) != 0)
            return "it did not go on";
        if (strcmp(end->records[0].word, "nothing") == 0 && end->text[0] != '\0')
            return "it printed something";
        return lacks(row, end);
    }
    snprintf(first, sizeof first, "bulkhead: ERROR: %s: ", end->records[0].word);
    snprintf(address, sizeof address, "(address 0x%lx)\n", (unsigned long)end->records[0].value);
    if (attack_has(end, "went on"))
        return "it went on";
    if (!WIFSIGNALED(end->status) || WTERMSIG(end->status) != row->signal)
        return "it ended in another way";
    if (strncmp(end->text, first, strlen(first)) != 0)
        return "the report has another id";
    const char *line = strstr(end->text, address);
    if (end->records[0].value != 0 && (line == NULL || line > strchr(end->text, '\n')))
        return "the report has another address";
    return lacks(row, end);
}

int attack_rows(const char *program, const attack_row_t *rows, size_t n, int argc, char **argv)
{
    if (argc > 1 && getenv("ATTACK_PIPE") != NULL) {
        attack_resume();
        rows[atoi(argv[1])].body();
        return 0;
    }
    attack_begin(program);
    int runs = argc > 1 ? atoi(argv[1]) : 1, failed = 0;
    for (size_t i = 0; i < n; i++) {
        const char *wrong = NULL;
        attack_end_t end;
        for (int run = 0; run < runs && wrong == NULL; run++) {
            char index[24];
            snprintf(index, sizeof index, "%zu", i);
            attack_exec("/proc/self/exe", index, "BULKHEAD_OPTIONS", rows[i].options, &end);
            wrong = wrong_with(&rows[i], &end);
        }
        printf("%-4s %s%s%s\n", wrong == NULL ? "ok" : "FAIL", rows[i].name, wrong != NULL ? ": " : "", wrong != NULL ? wrong : "");
        if (wrong != NULL)
            printf("     status %#x, '%s'\n", (unsigned)end.status, end.text);
        failed += wrong != NULL;
    }
    return failed != 0;
}
