/* Reports: what is said of any address, with control data as they are or damaged, the
 * names of mappings, and both forms of the text. Nothing may fault; lines are printable
 * and begin as they should; JSON that was not cut is JSON.
 *
 * The input: one byte of mode, eight of address, four of damage, then a text that
 * /proc/self/maps reads as. */
#include "run.h"

#include "core/describe.h"
#include "meta/arena.h"
#include "rt/mapping.h"
#include "rt/report.h"

#include <string.h>

#define HEAD 13u

/* ------------------------------------------------------------- a reader of JSON */

static const char *value(const char *at, const char *end, unsigned depth);

static const char *string(const char *at, const char *end)
{
    if (at == end || *at++ != '"')
        return NULL;
    while (at < end && *at != '"') {
        if ((unsigned char)*at < ' ' || (unsigned char)*at > '~')
            return NULL;
        if (*at == '\\' && ++at < end && *at != '"' && *at != '\\')
            return NULL;
        at++;
    }
    return at < end ? at + 1 : NULL;
}

static const char *word(const char *at, const char *end)
{
    const char *from = at;
    while (at < end && ((*at >= '0' && *at <= '9') || (*at >= 'a' && *at <= 'z') || *at == '-'))
        at++;
    return at > from ? at : NULL;
}

static const char *object(const char *at, const char *end, unsigned depth)
{
    do {
        at = string(at + 1, end);
        if (at == NULL || at == end || *at != ':')
            return NULL;
        at = value(at + 1, end, depth + 1);
    } while (at != NULL && at < end && *at == ',');
    return at != NULL && at < end && *at == '}' ? at + 1 : NULL;
}

static const char *value(const char *at, const char *end, unsigned depth)
{
    if (at == end || depth > 4)
        return NULL;
    if (*at == '{')
        return object(at, end, depth);
    return *at == '"' ? string(at, end) : word(at, end);
}

/* ------------------------------------------------------------------- the checks */

static void check_lines(const bhi_report_text_t *text)
{
    static const char begin[] = "bulkhead:   ";
    size_t line = 0;
    for (size_t i = 0; i < text->length; i++) {
        char c = text->text[i];
        size_t at = i - line;
        if (at < sizeof begin - 1 && c != begin[at])
            finding("a line of the report begins otherwise");
        if (c == '\n')
            line = i + 1;
        else if (c < ' ' || c > '~')
            finding("the report holds byte %u", (unsigned char)c);
    }
    if (line != text->length && text->length != BHI_REPORT_MAX)
        finding("the report's last line has no end");
}

static void check_texts(const bh_report_t *r)
{
    static bhi_report_text_t text;
    text.length = 0;
    bhi_report_details(r, &text);
    check_lines(&text);
    text.length = 0;
    bhi_report_json(r, &text);
    const char *end = text.text + text.length;
    if (text.length == BHI_REPORT_MAX)
        finding("a report as JSON was cut");
    const char *to = value(text.text, end, 0);
    if (to == NULL || end - to != 1 || *to != '\n')
        finding("a report is no JSON: %.*s", (int)text.length, text.text);
    bhi_format_t first;
    bhi_report_first_line(r, &first);
    if (first.length == 0 || first.text[first.length - 1] != '\n')
        finding("the first line has no end");
}

/* ------------------------------------------------------------------- the scenery */

static uintptr_t places[16];

static void build(unsigned mode)
{
    static const size_t sizes[8] = {0, 8, 24, 100, 1000, 20000, 200000, 5000000};
    for (unsigned i = 0; i < 16; i++) {
        window_switch(i & 1);
        places[i] = (uintptr_t)bh_malloc(sizes[i / 2]);
    }
    for (unsigned i = 0; i < 16; i += 1 + (mode >> 6)) {
        window_switch(i >> 1 & 1);
        if ((mode >> (i & 3) & 1) != 0)
            bh_free((void *)places[i]); /* NOLINT */
    }
}

static uintptr_t address(unsigned mode, uint64_t raw)
{
    switch (mode >> 3 & 7) {
    case 0: return raw;
    case 1: return window_places.blocks + raw % (16 * BH_SEGMENT_SIZE);
    case 2: return places[raw & 15] + (raw >> 4 & 0xffff) - 0x8000;
    case 3: return window_places.descs + raw % (16 * 64 * 128);
    case 4: return window_places.state + raw % sizeof(bhi_state_t);
    case 5: return (uintptr_t)&raw + (raw & 0xffff);
    default: return places[raw & 15] + (raw >> 4 & 0xff);
    }
}

/* A byte of a descriptor, a header, the state or a heap. */
static void damage(const uint8_t *how)
{
    size_t offset = (size_t)how[1] << 8 | how[2];
    uintptr_t at = 0;
    const bhi_page_t *page = bhi_desc_first(bhi_desc_at(window_places.descs, places[how[0] >> 4] - window_places.blocks));
    switch (how[0] & 7) {
    case 0: return;
    case 1: at = (uintptr_t)page + offset % sizeof *page; break;
    case 2: at = (uintptr_t)bhi_desc_at(window_places.descs, places[how[0] >> 4] - window_places.blocks) + offset % sizeof *page; break;
    case 3: at = window_places.headers + offset % (4 * sizeof(bhi_segment_t)); break;
    case 4: at = window_places.state + offset % sizeof(bhi_state_t); break;
    default: at = window_places.pool + offset % window_pool_used(); break;
    }
    *(uint8_t *)at = how[3]; /* NOLINT: an address in control data */
    window_distrust();
}

void run_report(const uint8_t *bytes, size_t size)
{
    static bhi_options_t options;
    static bh_report_t r;
    uint8_t head[HEAD] = {0};
    memcpy(head, bytes, size < HEAD ? size : HEAD);
    uint64_t raw;
    memcpy(&raw, head + 1, sizeof raw);
    window_options(&options, (head[0] & 4) != 0 ? BHI_PROFILE_HARDENED : BHI_PROFILE_SECURE);
    run_reset(&(window_start_t){.seed = head[0], .options = &options});
    if (sigsetjmp(window_end.at, 0) != 0)
        finding("a description ended with %s at %#zx", window_end_id(window_end.id), window_end.address);
    window_end.armed = true;
    build(head[0]);
    memset(&r, 0, sizeof r);
    r = (bh_report_t){.struct_size = sizeof r, .id = "double-free", .text = "a text", .thread = 1,
                      .fatal = true, .culprit = (head[0] & 1) != 0, .size_class = -1, .slot = -1, .heap = -1};
    r.address = (const void *)address(head[0], raw); /* NOLINT */
    damage(head + 9);
    bhi_describe(&r);
    if (r.place == NULL && size > HEAD) {
        window_file = (const char *)bytes + HEAD;
        window_file_length = size - HEAD;
        bhi_mapping_find(&r);
    }
    check_texts(&r);
    window_end.armed = false;
    window_file = NULL;
    run_verdict = r.place != NULL ? r.place : "no place";
}
