/* Replays inputs: files, folders of them, or random ones. Prints how each ended when
 * asked. */
#include "layout.h"
#include "run.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#ifndef FUZZ_TARGET
#error "FUZZ_TARGET is the target's number"
#endif
#define INPUT_MOST ((size_t)64 * 1024)

static uint8_t input[INPUT_MOST];
static bool verbose;
static unsigned long times = 1, files;

/* Whether an input runs the same whatever ran before: the addresses of a first time,
 * compared when all run again, backwards. */
#define SEEN_MOST 100000u
static struct {
    char *path;
    uint64_t hash;
} seen[SEEN_MOST];
static bool compare;

/* All inputs, where they are to be shuffled first. */
static char *list[SEEN_MOST];
static unsigned long listed;
static bool shuffled;

static unsigned long different;

static void replay_file(const char *path);

static void run_backwards(void)
{
    unsigned long n = files;
    for (unsigned long i = n < SEEN_MOST ? n : SEEN_MOST; i-- > 0;) {
        uint64_t was = seen[i].hash;
        compare = false;
        replay_file(seen[i].path);
        if (model.hash != was) {
            printf("%s: runs otherwise\n", seen[i].path);
            different++;
        }
    }
    printf("%s: %lu of %lu run the same again\n", program_target_name(FUZZ_TARGET), n - different, n);
}

static void trace_step(unsigned step, const char *op, unsigned thread)
{
    printf("%u (thread %u) %s\n", step, thread, op);
}

static void trace_line(const char *text)
{
    printf("        %s\n", text);
    fflush(stdout);
}

static const run_trace_t trace = {trace_step, trace_line};

static void replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        perror(path);
        exit(2);
    }
    size_t n = fread(input, 1, sizeof input, f);
    fclose(f);
    if (verbose) {
        printf("%s: ", path);
        fflush(stdout);
    }
    struct timespec from, to;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    for (unsigned long i = 0; i < times; i++)
        run_input(FUZZ_TARGET, input, n);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
    if (verbose)
        printf("%.0f us each, %s, %016llx\n", ((double)(to.tv_sec - from.tv_sec) * 1e6 + (double)(to.tv_nsec - from.tv_nsec) / 1e3) / (double)times, run_verdict, (unsigned long long)model.hash);
    if (compare && files < SEEN_MOST) {
        seen[files].path = strdup(path);
        seen[files].hash = model.hash;
    }
    files++;
}

static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* In an order that follows from the seed: what a reset leaves depends on what ran before. */
static void replay_shuffled(uint64_t seed)
{
    uint64_t state = seed * 2 + 1;
    for (unsigned long i = listed; i > 1; i--) {
        unsigned long other = next(&state) % i;
        char *path = list[i - 1];
        list[i - 1] = list[other];
        list[other] = path;
    }
    for (unsigned long i = 0; i < listed; i++)
        replay_file(list[i]);
}

/* Random inputs, the last one kept in a file for who wants to see the finding. */
static void replay_random(unsigned long count, uint64_t seed, const char *keep)
{
    uint64_t state = seed * 2 + 1;
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (unsigned long i = 0; i < count; i++) {
        size_t n = 3 + next(&state) % 64 * 4;
        for (size_t k = 0; k < n; k++)
            input[k] = (uint8_t)(next(&state) >> 32);
        if (keep != NULL) {
            FILE *f = fopen(keep, "wb");
            if (f == NULL || fwrite(input, 1, n, f) != n)
                exit(2);
            fclose(f);
        }
        run_input(FUZZ_TARGET, input, n);
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
    double seconds = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
    printf("%s: %lu random inputs, %.0f a second\n", program_target_name(FUZZ_TARGET), count, (double)count / seconds);
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void replay(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        perror(path);
        exit(2);
    }
    if (!S_ISDIR(st.st_mode)) {
        if (shuffled && listed < SEEN_MOST)
            list[listed++] = strdup(path);
        else
            replay_file(path);
        return;
    }
    struct dirent **names;
    int n = scandir(path, &names, visible, alphasort);
    for (int i = 0; i < n; i++) {
        char inner[4096];
        snprintf(inner, sizeof inner, "%s/%s", path, names[i]->d_name);
        free(names[i]);
        replay(inner);
    }
    free(names);
}

int main(int argc, char **argv)
{
    layout_fix(argv);
    int i = 1;
    uint64_t seed = 0;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "-v") == 0) {
            verbose = true;
        } else if (strcmp(argv[i], "-d") == 0) {
            compare = true;
        } else if (strcmp(argv[i], "-t") == 0) {
            run_trace = &trace;
        } else if (strcmp(argv[i], "-n") == 0 && i + 1 < argc) {
            times = strtoul(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "-s") == 0 && i + 1 < argc) {
            shuffled = true;
            seed = strtoul(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "-r") == 0 && i + 2 < argc) {
            replay_random(strtoul(argv[i + 1], NULL, 10), strtoul(argv[i + 2], NULL, 10), i + 3 < argc ? argv[i + 3] : NULL);
            return 0;
        } else {
            fprintf(stderr, "usage: %s -r COUNT SEED [LAST]\n       %s [-v] [-t] [-d] [-n TIMES] [-s SEED] FILE-OR-FOLDER...\n", argv[0], argv[0]);
            return 2;
        }
    }
    for (; i < argc; i++)
        replay(argv[i]);
    replay_shuffled(seed);
    if (compare)
        run_backwards();
    if (different != 0)
        return 1;
    printf("%s: %lu inputs replayed, no finding\n", program_target_name(FUZZ_TARGET), files);
    return 0;
}
