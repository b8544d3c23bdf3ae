/* Where options come from, in order: the configuration file, the program, the
 * environment. Runs in the first allocation, which may be the dynamic loader's
 * own: no getenv, no stdio, and of the program nothing that a relocation fills
 * in. */
#include "rt/options.h"

#include "os/os.h"
#include "rt/format.h"

/* An array, not a pointer and not a function: the first allocation may come while
 * the loader has relocated us but not the program, which comes last. Its address
 * in our own table is right even then, and constant characters need no relocation;
 * a pointer would still lack the load address, and a function might call through
 * a table that is not filled in, or allocate. As the program defines it, nobody
 * has a copy relocation of it; one that a library defines and the program reads
 * without -fPIE is copied late, and empty until then. */
extern const char bh_program_options[] __attribute__((weak, visibility("default")));

#define WARNINGS_MOST 16u

typedef struct text {
    const char *at;
    size_t length;
} text_t;

typedef struct reader {
    bhi_options_t *out;
    bhi_profile_t profile; /* decides ranges */
    const char *where;     /* for warnings; NULL: the environment */
    bhi_option_from_t from;
    unsigned warnings;
    bool profile_only;     /* first pass: looks for the profile and warns of nothing */
} reader_t;

static size_t length_of(const char *s, size_t most)
{
    size_t n = 0;
    while (n < most && s[n] != '\0')
        n++;
    return n;
}

/* ------------------------------------------------------------------ warnings */

static bool may_warn(reader_t *r)
{
    if (r->profile_only || r->warnings > WARNINGS_MOST)
        return false;
    if (r->warnings++ < WARNINGS_MOST)
        return true;
    static const char last[] = "bulkhead: WARNING: there are more options that are unknown or malformed\n";
    bhi_os_write(2, last, sizeof last - 1);
    return false;
}

static void warn_option(reader_t *r, text_t key, text_t value, int option)
{
    if (!may_warn(r))
        return;
    bhi_format_t line;
    bhi_format_start(&line);
    bhi_format_text(&line, "bulkhead: WARNING: option ");
    bhi_format_foreign(&line, key.at, key.length < 64 ? key.length : 64);
    if (r->where != NULL) {
        bhi_format_text(&line, " in ");
        bhi_format_text(&line, r->where);
    }
    if (option < 0) {
        bhi_format_text(&line, " is unknown; known are");
        for (int i = 0; bhi_options_key(i) != NULL; i++) {
            bhi_format_text(&line, i == 0 ? " " : ", ");
            bhi_format_text(&line, bhi_options_key(i));
        }
    } else {
        bhi_format_text(&line, " does not accept '");
        bhi_format_foreign(&line, value.at, value.length < 64 ? value.length : 64);
        bhi_format_text(&line, "'; accepted: ");
        bhi_options_accepted(&line, option, r->profile);
    }
    bhi_format_text(&line, "\n");
    bhi_os_write(2, line.text, line.length);
}

static void warn_source(reader_t *r, const char *where, const char *what)
{
    if (!may_warn(r))
        return;
    bhi_format_t line;
    bhi_format_start(&line);
    bhi_format_text(&line, "bulkhead: WARNING: ");
    bhi_format_text(&line, where);
    bhi_format_text(&line, what);
    bhi_format_text(&line, "\n");
    bhi_os_write(2, line.text, line.length);
}

/* ---------------------------------------------------------------------- text */

static void set(reader_t *r, text_t key, text_t value)
{
    int option = bhi_options_find(key.at, key.length);
    if (r->profile_only && option != bhi_options_find("profile", 7))
        return;
    if (option < 0 || !bhi_options_assign(r->out, option, r->profile, value.at, value.length))
        warn_option(r, key, value, option);
    else
        r->out->from[option] = (uint8_t)r->from;
}

static text_t trim(text_t t)
{
    while (t.length > 0 && (t.at[0] == ' ' || t.at[0] == '\t')) {
        t.at++;
        t.length--;
    }
    while (t.length > 0 && (t.at[t.length - 1] == ' ' || t.at[t.length - 1] == '\t' || t.at[t.length - 1] == '\r'))
        t.length--;
    return t;
}

/* Splits "key=value"; without '=' the value is empty. */
static void split(text_t entry, text_t *key, text_t *value)
{
    size_t eq = 0;
    while (eq < entry.length && entry.at[eq] != '=')
        eq++;
    size_t from = eq < entry.length ? eq + 1 : eq;
    *key = (text_t){entry.at, eq};
    *value = (text_t){entry.at + from, entry.length - from};
}

/* Calls `each` for every part between separators. */
static void parts(reader_t *r, text_t all, char separator, void (*each)(reader_t *, text_t))
{
    while (all.length > 0) {
        size_t n = 0;
        while (n < all.length && all.at[n] != separator)
            n++;
        each(r, (text_t){all.at, n});
        n += n < all.length;
        all.at += n;
        all.length -= n;
    }
}

static void set_entry(reader_t *r, text_t entry)
{
    text_t key, value;
    split(entry, &key, &value);
    if (entry.length > 0)
        set(r, key, value);
}

static void set_line(reader_t *r, text_t line)
{
    text_t key, value;
    line = trim(line);
    split(line, &key, &value);
    if (line.length > 0 && line.at[0] != '#')
        set(r, trim(key), trim(value));
}

/* ------------------------------------------------------------------- sources */

/* The result of reading the file goes on the stack only: it is wanted twice, and
 * there is no memory to keep it in. */
typedef struct file {
    long length; /* or a negated errno value */
    char text[BH_OPTIONS_BYTES + 1];
} file_t;

static void from_file(reader_t *r, const file_t *file)
{
    r->where = BH_CONFIGURATION_FILE;
    r->from = BHI_FROM_FILE;
    if (file->length == -EUCLEAN)
        warn_source(r, r->where, " is ignored: it is not a regular file that root owns and only root may write");
    else if (file->length == -EACCES || file->length == -EIO)
        warn_source(r, r->where, " is ignored: it cannot be read");
    if (file->length <= 0)
        return;
    size_t length = (size_t)file->length;
    if (length > BH_OPTIONS_BYTES) {
        warn_source(r, r->where, " is longer than 4096 bytes: lines that do not end before are left out");
        for (length = BH_OPTIONS_BYTES; length > 0 && file->text[length - 1] != '\n'; length--)
            ;
    }
    parts(r, (text_t){file->text, length}, '\n', set_line);
}

static void from_program(reader_t *r, const char *program)
{
    r->where = "bh_program_options";
    r->from = BHI_FROM_PROGRAM;
    size_t length = length_of(program, BH_OPTIONS_BYTES);
    if (length == BH_OPTIONS_BYTES)
        warn_source(r, r->where, " is ignored: it is longer than 4095 bytes");
    else
        parts(r, (text_t){program, length}, ':', set_entry);
}

/* The value when `entry` starts with `name`, else NULL. */
static const char *value_of(const char *entry, const char *name)
{
    size_t i = 0;
    for (; name[i] != '\0'; i++) {
        if (entry[i] != name[i])
            return NULL;
    }
    return entry + i;
}

/* The list first, so that a single variable overrides it. */
static void from_environment(reader_t *r, char *const *env)
{
    r->where = NULL;
    r->from = BHI_FROM_ENVIRONMENT;
    for (char *const *e = env; *e != NULL; e++) {
        const char *list = value_of(*e, "BULKHEAD_OPTIONS=");
        if (list != NULL)
            parts(r, (text_t){list, length_of(list, SIZE_MAX)}, ':', set_entry);
    }
    for (char *const *e = env; *e != NULL; e++) {
        const char *single = value_of(*e, "BULKHEAD_");
        if (single == NULL || value_of(*e, "BULKHEAD_OPTIONS=") != NULL || value_of(*e, "BULKHEAD_TEST_") != NULL)
            continue;
        text_t key, value, entry = {single, length_of(single, SIZE_MAX)};
        split(entry, &key, &value);
        if (key.length < entry.length)
            set(r, key, value);
    }
}

static void from_all(reader_t *r, const bhi_option_sources_t *from, const file_t *file)
{
    from_file(r, file);
    if (from->program != NULL)
        from_program(r, from->program);
    if (from->env != NULL)
        from_environment(r, from->env);
}

void bhi_options_read_from(bhi_options_t *out, const bhi_option_sources_t *from)
{
    file_t file;
    file.length = from->file != NULL ? bhi_os_read_root_file(from->file, file.text, sizeof file.text) : 0;
    reader_t r = {.out = out, .profile_only = true};
    bhi_options_defaults(out, BHI_PROFILE_SECURE);
    from_all(&r, from, &file);
    r.profile = (bhi_profile_t)out->profile;
    r.profile_only = false;
    bhi_options_defaults(out, r.profile);
    from_all(&r, from, &file);
}

void bhi_options_read(bhi_options_t *out, char *const *env)
{
    const char *program = bh_program_options;
    bhi_options_read_from(out, &(bhi_option_sources_t){BH_CONFIGURATION_FILE, program, env});
}
