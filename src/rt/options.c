/* Option parser. Runs before libc is ready: no getenv, no stdio, no locale. */
#include "rt/options.h"

#include "os/os.h"
#include "rt/format.h"

typedef struct text {
    const char *at;
    size_t length;
} text_t;

typedef struct option {
    const char *key;
    const char *words; /* "a|b|c", NULL: a number */
    size_t offset;
} option_t;

static const option_t options[] = {
#define BH_OPTION(field, key, def, words) {key, words, offsetof(bhi_options_t, field)},
#include "rt/options.def"
#undef BH_OPTION
};
#define OPTIONS (sizeof options / sizeof options[0])

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool equal(text_t a, const char *b, size_t length)
{
    if (a.length != length)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (lower(a.at[i]) != b[i])
            return false;
    }
    return true;
}

static size_t length_of(const char *s)
{
    size_t n = 0;
    while (s[n] != '\0')
        n++;
    return n;
}

static void warn(text_t key, text_t value, const option_t *known)
{
    bhi_format_t line;
    bhi_format_start(&line);
    bhi_format_text(&line, "bulkhead: WARNING: option ");
    bhi_format_foreign(&line, key.at, key.length < 64 ? key.length : 64);
    if (known == NULL) {
        bhi_format_text(&line, " is unknown; known are");
        for (size_t i = 0; i < OPTIONS; i++) {
            bhi_format_text(&line, i == 0 ? " " : ", ");
            bhi_format_text(&line, options[i].key);
        }
    } else {
        bhi_format_text(&line, " does not accept '");
        bhi_format_foreign(&line, value.at, value.length < 64 ? value.length : 64);
        bhi_format_text(&line, "'; accepted: ");
        bhi_format_text(&line, known->words != NULL ? known->words : "a number from 0 to 4294967295");
    }
    bhi_format_text(&line, "\n");
    bhi_os_write(2, line.text, line.length);
}

static bool parse_number(text_t value, uint32_t *out)
{
    uint64_t n = 0;
    if (value.length == 0)
        return false;
    for (size_t i = 0; i < value.length; i++) {
        if (value.at[i] < '0' || value.at[i] > '9')
            return false;
        n = n * 10 + (uint64_t)(value.at[i] - '0');
        if (n > UINT32_MAX)
            return false;
    }
    *out = (uint32_t)n;
    return true;
}

static bool parse_word(text_t value, const char *words, uint32_t *out)
{
    for (uint32_t index = 0; *words != '\0'; index++) {
        size_t n = 0;
        while (words[n] != '\0' && words[n] != '|')
            n++;
        if (equal(value, words, n)) {
            *out = index;
            return true;
        }
        words += n + (words[n] == '|' ? 1 : 0);
    }
    return false;
}

/* NULL: there is none. */
static const option_t *find(text_t key)
{
    for (size_t i = 0; i < OPTIONS; i++) {
        if (equal(key, options[i].key, length_of(options[i].key)))
            return &options[i];
    }
    return NULL;
}

static bool parse(const option_t *o, text_t value, uint32_t *out)
{
    return o->words != NULL ? parse_word(value, o->words, out) : parse_number(value, out);
}

static void set(bhi_options_t *out, text_t key, text_t value)
{
    const option_t *o = find(key);
    if (o == NULL || !parse(o, value, (uint32_t *)((char *)out + o->offset)))
        warn(key, value, o);
}

static void set_list(bhi_options_t *out, const char *list)
{
    while (*list != '\0') {
        size_t n = 0;
        while (list[n] != '\0' && list[n] != ':')
            n++;
        size_t eq = 0;
        while (eq < n && list[eq] != '=')
            eq++;
        if (n > 0) {
            text_t key = {list, eq};
            text_t value = {list + (eq < n ? eq + 1 : n), eq < n ? n - eq - 1 : 0};
            set(out, key, value);
        }
        list += n + (list[n] == ':' ? 1 : 0);
    }
}

/* The value when `entry` is "name=value", else NULL. */
static const char *value_of(const char *entry, const char *name)
{
    size_t i = 0;
    for (; name[i] != '\0'; i++) {
        if (entry[i] != name[i])
            return NULL;
    }
    return entry + i;
}

void bhi_options_read(bhi_options_t *out, char *const *env)
{
#define BH_OPTION(field, key, def, words) out->field = def;
#include "rt/options.def"
#undef BH_OPTION
    if (env == NULL)
        return;
    /* The list first, so that a single variable overrides it. */
    for (char *const *e = env; *e != NULL; e++) {
        const char *list = value_of(*e, "BULKHEAD_OPTIONS=");
        if (list != NULL)
            set_list(out, list);
    }
    for (char *const *e = env; *e != NULL; e++) {
        const char *single = value_of(*e, "BULKHEAD_");
        if (single == NULL || value_of(*e, "BULKHEAD_OPTIONS=") != NULL || value_of(*e, "BULKHEAD_TEST_") != NULL)
            continue;
        size_t n = 0;
        while (single[n] != '\0' && single[n] != '=')
            n++;
        if (single[n] == '=')
            set(out, (text_t){single, n}, (text_t){single + n + 1, length_of(single + n + 1)});
    }
}

int bhi_options_find(const char *key)
{
    const option_t *o = find((text_t){key, length_of(key)});
    return o != NULL ? (int)(o - options) : -1;
}

uint32_t bhi_options_value(const bhi_options_t *from, int option)
{
    return *(const uint32_t *)((const char *)from + options[option].offset);
}

const char *bhi_options_word(int option, uint32_t value, size_t *length)
{
    const char *word = options[option].words;
    if (word == NULL)
        return NULL;
    for (; value > 0; value--) {
        while (*word++ != '|')
            ;
    }
    *length = 0;
    while (word[*length] != '\0' && word[*length] != '|')
        ++*length;
    return word;
}

bool bhi_options_parse(int option, const char *text, uint32_t *value)
{
    return parse(&options[option], (text_t){text, length_of(text)}, value);
}
