/* The table of options: what each accepts, its defaults, its value as text. Runs
 * before libc is ready: no stdio, no locale. Knows nothing of where values come
 * from. */
#include "rt/options.h"

#include "rt/format.h"

typedef enum kind { WORD, NUMBER, BYTES, LOWER, REPLAY, STRING } kind_t;

typedef struct option {
    const char *key;
    const char *words; /* "a|b|c" */
    size_t offset;
    uint64_t least, most;
    uint64_t defaults[2]; /* in secure, in the others */
    kind_t kind;
} option_t;

static const option_t options[] = {
#define BH_OPTION(field, kind, words, least, most, secure, strict)                                                     \
    {#field, words, offsetof(bhi_options_t, field), least, most, {secure, strict}, kind},
#include "rt/options.def"
#undef BH_OPTION
};
#define OPTIONS ((int)BHI_OPTIONS)

static const struct special {
    bhi_profile_t profile;
    size_t offset;
    uint64_t value;
} specials[] = {
#define BH_PROFILE_DEFAULT(profile, field, value) {BHI_PROFILE_##profile, offsetof(bhi_options_t, field), value},
#include "rt/options_profile.def"
#undef BH_PROFILE_DEFAULT
};
#define SPECIALS (sizeof specials / sizeof specials[0])

#ifdef BH_TESTING
const char *bhi_options_profiles;
#else
#define bhi_options_profiles ((const char *)NULL)
#endif

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* `b` in lower case. */
static bool equal(const char *a, const char *b, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (lower(a[i]) != b[i])
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

static const char *words_of(const option_t *o)
{
    return o->offset == offsetof(bhi_options_t, profile) && bhi_options_profiles != NULL ? bhi_options_profiles : o->words;
}

static uint64_t default_of(const option_t *o, bhi_profile_t profile)
{
    for (size_t i = 0; i < SPECIALS; i++) {
        if (specials[i].profile == profile && specials[i].offset == o->offset)
            return specials[i].value;
    }
    return o->defaults[profile != BHI_PROFILE_SECURE];
}

static uint64_t most_of(const option_t *o, bhi_profile_t profile)
{
    bool production = profile == BHI_PROFILE_SECURE || profile == BHI_PROFILE_HARDENED;
    if (o->kind == REPLAY && production)
        return 0;
    return o->kind == LOWER ? default_of(o, profile) : o->most;
}

static void *field_of(bhi_options_t *of, const option_t *o)
{
    return (char *)of + o->offset;
}

static bool is_narrow(const option_t *o)
{
    return o->kind == WORD || o->kind == NUMBER || o->kind == REPLAY;
}

static uint64_t load(const bhi_options_t *from, const option_t *o)
{
    const void *field = (const char *)from + o->offset;
    return is_narrow(o) ? *(const uint32_t *)field : *(const uint64_t *)field;
}

static void store(bhi_options_t *to, const option_t *o, uint64_t value)
{
    if (is_narrow(o))
        *(uint32_t *)field_of(to, o) = (uint32_t)value;
    else
        *(uint64_t *)field_of(to, o) = value;
}

static void store_text(bhi_options_t *to, const option_t *o, const char *text, size_t length)
{
    char *field = field_of(to, o);
    for (size_t i = 0; i <= BH_OPTION_TEXT; i++)
        field[i] = i < length ? text[i] : '\0';
}

int bhi_options_find(const char *key, size_t length)
{
    for (int i = 0; i < OPTIONS; i++) {
        if (length_of(options[i].key) == length && equal(key, options[i].key, length))
            return i;
    }
    return -1;
}

const char *bhi_options_key(int option)
{
    return option < OPTIONS ? options[option].key : NULL;
}

void bhi_options_defaults(bhi_options_t *out, bhi_profile_t profile)
{
    for (const option_t *o = options; o < options + OPTIONS; o++) {
        if (o->kind == STRING)
            store_text(out, o, "", 0);
        else
            store(out, o, default_of(o, profile));
    }
    out->profile = profile;
    for (unsigned i = 0; i < BHI_OPTIONS; i++)
        out->from[i] = BHI_FROM_PROFILE;
}

/* ------------------------------------------------------------------- parsing */

static bool parse_number(const char *text, size_t length, bool suffix, uint64_t least, uint64_t most, uint64_t *out)
{
    unsigned shift = 0;
    if (suffix && length > 1) {
        char last = lower(text[length - 1]);
        shift = last == 'k' ? 10 : last == 'm' ? 20 : last == 'g' ? 30 : 0;
        length -= shift != 0;
    }
    uint64_t n = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9' || n > UINT64_MAX / 16)
            return false;
        n = n * 10 + (uint64_t)(text[i] - '0');
    }
    if (length == 0 || n > most >> shift || n << shift < least)
        return false;
    *out = n << shift;
    return true;
}

static size_t word_length(const char *words)
{
    size_t n = 0;
    while (words[n] != '\0' && words[n] != '|')
        n++;
    return n;
}

static bool parse_word(const char *text, size_t length, const char *words, uint64_t *out)
{
    for (uint64_t index = 0; *words != '\0'; index++) {
        size_t n = word_length(words);
        if (n == length && equal(text, words, n)) {
            *out = index;
            return true;
        }
        words += n + (words[n] == '|' ? 1 : 0);
    }
    return false;
}

static bool acceptable_text(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
            return false;
    }
    return length <= BH_OPTION_TEXT;
}

bool bhi_options_assign(bhi_options_t *out, int option, bhi_profile_t profile, const char *text, size_t length)
{
    const option_t *o = &options[option];
    uint64_t value;
    switch (o->kind) {
    case STRING:
        if (!acceptable_text(text, length))
            return false;
        store_text(out, o, text, length);
        return true;
    case WORD:
        if (!parse_word(text, length, words_of(o), &value))
            return false;
        break;
    default:
        if (!parse_number(text, length, !is_narrow(o), o->least, most_of(o, profile), &value))
            return false;
    }
    store(out, o, value);
    return true;
}

/* ------------------------------------------------------------------- telling */

/* As a user would write it: in the largest unit that leaves no rest. */
static void bytes(bhi_format_t *out, uint64_t n)
{
    unsigned unit = 0;
    while (n != 0 && n % 1024 == 0 && unit < 3) {
        n /= 1024;
        unit++;
    }
    bhi_format_number(out, n);
    bhi_format_bytes(out, &"kmg"[unit - (unit > 0)], unit > 0);
}

void bhi_options_accepted(bhi_format_t *out, int option, bhi_profile_t profile)
{
    const option_t *o = &options[option];
    switch (o->kind) {
    case WORD:
        bhi_format_text(out, words_of(o));
        return;
    case STRING:
        bhi_format_text(out, "at most 255 bytes, no control characters");
        return;
    case NUMBER:
    case REPLAY:
        bhi_format_text(out, "a number from ");
        bhi_format_number(out, o->least);
        bhi_format_text(out, " to ");
        bhi_format_number(out, most_of(o, profile));
        return;
    default:
        bhi_format_text(out, "a number of bytes (or with k, m, g) from ");
        bytes(out, o->least);
        bhi_format_text(out, " to ");
        bytes(out, most_of(o, profile));
    }
}

void bhi_options_text(bhi_format_t *out, const bhi_options_t *from, int option)
{
    const option_t *o = &options[option];
    if (o->kind == STRING) {
        bhi_format_text(out, (const char *)from + o->offset);
        return;
    }
    uint64_t value = load(from, o);
    if (o->kind != WORD) {
        bhi_format_number(out, value);
        return;
    }
    const char *word = words_of(o);
    for (; value > 0; value--)
        word += word_length(word) + 1;
    bhi_format_bytes(out, word, word_length(word));
}

bool bhi_options_number(const bhi_options_t *from, int option, uint64_t *out)
{
    if (options[option].kind == WORD || options[option].kind == STRING)
        return false;
    *out = load(from, &options[option]);
    return true;
}

void bhi_options_weaker(const bhi_options_t *now, void (*say)(const char *key, const char *effect))
{
    bhi_options_t promised;
    bhi_options_defaults(&promised, (bhi_profile_t)now->profile);
    if (now->foreign != promised.foreign)
        say("foreign", "a foreign pointer does not end the process");
    if (now->guard == BHI_GUARD_MPROTECT)
        say("guard", "guards are limited by a budget of mappings");
    if (now->guard == BHI_GUARD_NONE)
        say("guard", "there are no guards");
    if (now->quarantine_bytes < promised.quarantine_bytes)
        say("quarantine_bytes", "freed blocks are reused sooner");
    if (now->large_quarantine_bytes < promised.large_quarantine_bytes)
        say("large_quarantine_bytes", "addresses of large blocks are reused sooner");
    if (now->seed != 0)
        say("seed", "all random choices can be foretold");
    if (now->guarded_recover != 0)
        say("guarded_recover", "an access to a guarded block that is free, or beside one, does not end the process");
    if (now->mismatch > promised.mismatch)
        say("mismatch", "a block that the wrong function releases does not end the process");
}
