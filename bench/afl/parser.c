/* A parser of small documents with twelve planted heap bugs, to compare what a fuzzer
 * finds under different allocators. No two bugs are of the same kind, none stands in
 * the way of another, and each says its number on descriptor PLANTED_FD, if there is
 * one, right before it is committed.
 *
 * A document: commands of one letter and their bytes. The gates before the bugs are
 * compared byte by byte, so that coverage leads a fuzzer to each of them.
 *
 *   parser [FILE]      one document: the file, or standard input
 * Built with PERSISTENT and afl-clang-fast: as many as the fork server sends. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAMES 8

typedef struct input {
    const uint8_t *at, *end;
} input_t;

typedef struct name {
    char *text;
    size_t length;
} name_t;

static int planted_fd = -1;
static volatile uint8_t sink;

static void planted(int number)
{
    char line[32];
    int n = snprintf(line, sizeof line, "planted %d\n", number);
    if (planted_fd >= 0 && write(planted_fd, line, (size_t)n) != n)
        planted_fd = -1;
}

static unsigned next(input_t *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

/* The gate: `word` comes next. */
static int has(input_t *in, const char *word)
{
    for (; *word != '\0'; word++) {
        if (next(in) != (uint8_t)*word)
            return 0;
    }
    return 1;
}

/* S: a string of n bytes, its end marked behind the block's. */
static void string(input_t *in)
{
    size_t n = 16 + next(in) % 4 * 16;
    int off_by_one = has(in, "z");
    char *p = malloc(off_by_one ? n : n + 1);
    for (size_t i = 0; i < n; i++)
        p[i] = (char)next(in);
    if (off_by_one)
        planted(1);
    p[n] = '\0';
    free(p);
}

/* I: an element of an array; the bound is taken for a length in bytes. */
static void element(input_t *in)
{
    size_t n = 8 + next(in) % 8 * 2, index = next(in);
    uint16_t *p = calloc(n, sizeof *p);
    if (index >= n) {
        if (has(in, "i") && index < n * sizeof *p) {
            planted(2);
            sink = (uint8_t)p[index];
        }
    } else {
        sink = (uint8_t)p[index];
    }
    free(p);
}

/* T: trims blanks at the end, and does not stop at the start. */
static void trim(input_t *in)
{
    size_t n = 16;
    char *p = malloc(n), *last = p + n - 1;
    for (size_t i = 0; i < n; i++)
        p[i] = (char)next(in);
    int careless = has(in, "t");
    while (last >= p && *last == ' ')
        last--;
    if (last < p && careless) {
        planted(3);
        *last = '\n';
    }
    free(p);
}

/* N, D, L, W: names that are set, dropped, read and changed. */
static name_t names[NAMES];

static void set_name(input_t *in)
{
    name_t *name = &names[next(in) % NAMES];
    free(name->text);
    name->length = 32 + next(in) % 64;
    name->text = malloc(name->length);
    memset(name->text, 'n', name->length);
}

static void drop_name(input_t *in)
{
    name_t *name = &names[next(in) % NAMES];
    unsigned how = next(in);
    if (name->text == NULL)
        return;
    size_t middle = name->length / 2;
    free(name->text);
    if (how == 'r') {
        planted(4);
        sink = (uint8_t)((volatile char *)name->text)[middle];
    } else if (how == 'w') {
        planted(5);
        ((volatile char *)name->text)[middle] = 'w';
    } else if (how == 'f') {
        planted(6);
        free(name->text);
    }
    name->text = NULL;
}

/* B: skips blanks, then frees where it stands. */
static void blanks(input_t *in)
{
    char *p = malloc(48), *at = p;
    memset(p, '.', 48);
    for (size_t i = 0; i < 16; i++)
        p[i] = (char)next(in);
    while (at < p + 16 && *at == ' ')
        at++;
    if (at != p && has(in, "b")) {
        planted(7);
        free(at);
    } else {
        free(p);
    }
}

/* G: an array grows while somebody holds a pointer into it. */
static void grow(input_t *in)
{
    size_t n = 64;
    char *p = malloc(n), *mark = p + 8;
    memset(p, 'g', n);
    for (int i = 0; i < 3 && has(in, "+"); i++) {
        n += 8;
        p = realloc(p, n);
        if (has(in, "g")) {
            planted(8);
            *(volatile char *)mark = 'G';
        }
        mark = p + 8;
    }
    free(p);
}

/* M: a picture, whose size is computed in 16 bits. */
static void picture(input_t *in)
{
    uint16_t width = (uint16_t)(next(in) * 8), height = (uint16_t)(next(in) * 8);
    uint16_t size = (uint16_t)(width * height);
    size_t whole = (size_t)width * height;
    char *p = malloc(size != 0 ? size : 1);
    if (whole <= size || has(in, "m")) {
        if (whole > size) {
            planted(9);
            whole = size + 200u; /* the first rows */
        }
        for (size_t i = 0; i < whole; i++)
            ((volatile char *)p)[i] = 'm';
    }
    free(p);
}

/* F: a buffer that is on the stack while it is small. */
static void buffer(input_t *in)
{
    char small[64];
    size_t n = next(in);
    char *p = n <= sizeof small ? small : malloc(n);
    memset(p, 0, n);
    sink = (uint8_t)p[n / 2];
    if (n > sizeof small) {
        free(p);
    } else if (has(in, "fr")) {
        planted(10);
        __asm__ volatile("" : "+r"(p)); /* no compiler is to see where it points */
        free(p);
    }
}

/* O: an offset from the file, relative to a block. */
static void offset(input_t *in)
{
    size_t at = next(in) << 8 | next(in);
    char *p = calloc(1, 256);
    if (at < 256) {
        sink = (uint8_t)p[at];
    } else if (at < 1024 && has(in, "o")) {
        planted(11);
        sink = (uint8_t)((volatile char *)p)[at];
    }
    free(p);
}

/* V: a large table that is read after its end of life. */
static void table(input_t *in)
{
    size_t n = 100000 + next(in) * 100u;
    char *p = malloc(n);
    p[n / 2] = 1;
    free(p);
    if (has(in, "vt")) {
        planted(12);
        sink = (uint8_t)((volatile char *)p)[n / 2];
    }
}

static void parse(const uint8_t *data, size_t size)
{
    static const struct {
        char letter;
        void (*command)(input_t *in);
    } commands[] = {
        {'S', string}, {'I', element}, {'T', trim},    {'N', set_name}, {'D', drop_name}, {'B', blanks},
        {'G', grow},   {'M', picture}, {'F', buffer}, {'O', offset},   {'V', table},
    };
    input_t in = {data, data + size};
    while (in.at < in.end) {
        unsigned letter = next(&in);
        for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
            if (letter == (uint8_t)commands[i].letter)
                commands[i].command(&in);
        }
    }
    for (size_t i = 0; i < NAMES; i++) {
        free(names[i].text);
        names[i].text = NULL;
    }
}

#ifdef PERSISTENT
__AFL_FUZZ_INIT();
#endif

int main(int argc, char **argv)
{
    const char *fd = getenv("PLANTED_FD");
    if (fd != NULL)
        planted_fd = atoi(fd);
#ifdef PERSISTENT
    (void)argc, (void)argv;
    const uint8_t *data = __AFL_FUZZ_TESTCASE_BUF;
    while (__AFL_LOOP(100000)) {
        size_t size = (size_t)__AFL_FUZZ_TESTCASE_LEN;
        parse(data, size);
    }
#else
    static uint8_t data[4096];
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : stdin;
    if (file == NULL)
        return 1;
    parse(data, fread(data, 1, sizeof data, file));
    fclose(file);
#endif
    return 0;
}
