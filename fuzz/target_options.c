/* The options' parser. The first byte says which source the text is of: the
 * configuration file, the program, the environment, or all. Whatever the text says, the
 * result is within what each option accepts, and every warning is a line of printable
 * characters. */
#include "run.h"

#include "rt/format.h"
#include "rt/options.h"

#include <string.h>

#define TEXT_MOST ((size_t)8192)

static const struct {
    const char *key;
    bool word, number, text;
    uint64_t least, most;
} limits[] = {
#define WORD true, false, false
#define NUMBER false, true, false
#define BYTES false, true, false
#define LOWER false, true, false
#define REPLAY false, true, false
#define STRING false, false, true
#define BH_OPTION(field, kind, words, low, high, secure, strict) {#field, kind, low, high},
#include "rt/options.def"
#undef BH_OPTION
};

static unsigned lines;

/* Calls of the writer are whole lines. */
static void written(int fd, const char *text, size_t length)
{
    if (fd != 2 || length == 0 || text[length - 1] != '\n' || memcmp(text, "bulkhead: WARNING: ", 19) != 0)
        finding("a warning that is none: %.*s", (int)length, text);
    for (size_t i = 0; i + 1 < length; i++) {
        if (text[i] < ' ' || text[i] > '~')
            finding("a warning with byte %u", (unsigned char)text[i]);
    }
    if (++lines > 17)
        finding("too many warnings");
}

static void check_one(const bhi_options_t *o, int i)
{
    bhi_format_t text;
    bhi_format_start(&text);
    bhi_options_text(&text, o, i);
    uint64_t value = 0;
    if (bhi_options_number(o, i, &value) != limits[i].number)
        finding("option %s is a number or not", limits[i].key);
    if (limits[i].number && (value < limits[i].least || value > limits[i].most))
        finding("option %s is %zu", limits[i].key, (size_t)value);
    for (size_t k = 0; k < text.length; k++) {
        if ((unsigned char)text.text[k] < ' ' || text.text[k] == 0x7f)
            finding("option %s holds a control character", limits[i].key);
    }
    /* As text it must be what the parser takes for the same value. */
    bhi_options_t again = *o;
    if (!bhi_options_assign(&again, i, (bhi_profile_t)o->profile, text.text, text.length))
        finding("option %s does not accept its own value %.*s", limits[i].key, (int)text.length, text.text);
    if (memcmp(&again, o, sizeof again) != 0 && !limits[i].text)
        finding("option %s is another one after %.*s", limits[i].key, (int)text.length, text.text);
}

static void check_all(const bhi_options_t *o)
{
    if (o->profile > BHI_PROFILE_FUZZ || o->guard > BHI_GUARD_MPROTECT || o->foreign > BHI_FOREIGN_IGNORE || o->report > BHI_REPORT_JSON)
        finding("a word that is no choice");
    for (int i = 0; bhi_options_key(i) != NULL; i++)
        check_one(o, i);
}

static void read_from(bhi_options_t *out, unsigned mode, char *text, size_t size)
{
    static char list[TEXT_MOST + 32], single[TEXT_MOST + 32];
    char *env[4] = {0};
    unsigned n = 0;
    if ((mode & 4) != 0) {
        memcpy(list, "BULKHEAD_OPTIONS=", 17);
        memcpy(list + 17, text, size + 1);
        env[n++] = list;
    }
    if ((mode & 8) != 0) {
        memcpy(single, "BULKHEAD_", 9);
        memcpy(single + 9, text, size + 1);
        env[n++] = single;
        env[n++] = text;
    }
    window_file = (mode & 1) != 0 ? text : NULL;
    window_file_length = size;
    bhi_options_read_from(out, &(bhi_option_sources_t){"a file", (mode & 2) != 0 ? text : NULL, (mode & 12) != 0 ? env : NULL});
}

void run_options(const uint8_t *bytes, size_t size)
{
    static bhi_options_t first, second;
    static char text[TEXT_MOST + 1];
    unsigned mode = size > 0 ? bytes[0] : 0;
    size_t n = size > 0 ? size - 1 : 0;
    if (n > TEXT_MOST)
        n = TEXT_MOST;
    memcpy(text, bytes + (size > 0), n);
    text[n] = '\0';
    window_options(&first, BHI_PROFILE_SECURE);
    run_reset(&(window_start_t){.seed = 1, .options = &first});
    window_written = written;
    memset(&first, 0, sizeof first);
    memset(&second, 0xff, sizeof second);
    if (sigsetjmp(window_end.at, 0) != 0)
        finding("the parser ended with %s at %#zx", window_end_id(window_end.id), window_end.address);
    window_end.armed = true;
    lines = 0;
    read_from(&first, mode, text, n);
    lines = 0;
    read_from(&second, mode, text, n);
    for (int i = 0; bhi_options_key(i) != NULL; i++) {
        bhi_format_t x, y;
        bhi_format_start(&x);
        bhi_format_start(&y);
        bhi_options_text(&x, &first, i);
        bhi_options_text(&y, &second, i);
        if (x.length != y.length || memcmp(x.text, y.text, x.length) != 0)
            finding("option %s depends on what was there before", limits[i].key);
    }
    check_all(&first);
    window_end.armed = false;
    window_written = NULL;
    run_verdict = "returned";
}
