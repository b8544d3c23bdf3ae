/* Formatter of reports; see report.h. */
#include "rt/report.h"

#define DETAIL "bulkhead:   "

void bhi_report_first_line(const bhi_report_t *r, bhi_format_t *line)
{
    bhi_format_start(line);
    bhi_format_text(line, "bulkhead: ERROR: ");
    bhi_format_text(line, r->id);
    bhi_format_text(line, ": ");
    bhi_format_text(line, r->text);
    bhi_format_text(line, " (address ");
    bhi_format_hex(line, (uintptr_t)r->address);
    bhi_format_text(line, ")\n");
}

void bhi_report_append(bhi_report_text_t *out, const bhi_format_t *piece)
{
    for (size_t i = 0; i < piece->length; i++) {
        if (out->length == BHI_REPORT_MAX && out->full != NULL)
            out->full(out);
        if (out->length < BHI_REPORT_MAX)
            out->text[out->length++] = piece->text[i];
    }
}

/* --------------------------------------------------------------------- text */

static void begin(bhi_format_t *f, const char *name)
{
    bhi_format_start(f);
    bhi_format_text(f, DETAIL);
    bhi_format_text(f, name);
}

static void end(bhi_format_t *f, bhi_report_text_t *out)
{
    bhi_format_text(f, "\n");
    bhi_report_append(out, f);
}

static void text_number(bhi_format_t *f, uint64_t n, const char *after)
{
    bhi_format_number(f, n);
    bhi_format_text(f, after);
}

static void text_offset(const bhi_report_t *r, bhi_format_t *f)
{
    size_t off = (size_t)r->offset;
    if (r->offset == 0) {
        bhi_format_text(f, "the address is its start");
    } else if (r->offset < 0) {
        text_number(f, 0 - off, " bytes before it");
    } else if (off < r->usable_size) {
        bhi_format_text(f, "the address is ");
        text_number(f, off, " bytes inside it");
    } else {
        bhi_format_text(f, "the address is ");
        text_number(f, off - r->usable_size, " bytes after its end");
    }
}

static void text_block(const bhi_report_t *r, bhi_report_text_t *out)
{
    bhi_format_t f;
    begin(&f, "block: ");
    bhi_format_hex(&f, (uintptr_t)r->block);
    bhi_format_text(&f, ", size class ");
    text_number(&f, r->block_size, " bytes, usable ");
    text_number(&f, r->usable_size, ", requested ");
    if (r->requested_size != 0)
        bhi_format_number(&f, r->requested_size);
    else
        bhi_format_text(&f, "not recorded");
    bhi_format_text(&f, "; ");
    text_offset(r, &f);
    end(&f, out);
    begin(&f, "state: ");
    bhi_format_text(&f, r->state != NULL ? r->state : "not known");
    if (r->allocated_by != NULL) {
        bhi_format_text(&f, ", allocated by ");
        bhi_format_text(&f, r->allocated_by);
    }
    if (r->released_by != NULL) {
        bhi_format_text(&f, ", released by ");
        bhi_format_text(&f, r->released_by);
    }
    if (r->left != NULL && r->right != NULL) {
        bhi_format_text(&f, "; block before it: ");
        bhi_format_text(&f, r->left);
        bhi_format_text(&f, "; block after it: ");
        bhi_format_text(&f, r->right);
    }
    end(&f, out);
}

static void text_page(const bhi_report_t *r, bhi_report_text_t *out)
{
    bhi_format_t f;
    begin(&f, "page: ");
    bhi_format_hex(&f, (uintptr_t)r->page);
    bhi_format_text(&f, ", ");
    if (r->size_class >= 0) {
        text_number(&f, r->page_blocks, " blocks of class ");
        text_number(&f, (unsigned)r->size_class, ", this is block ");
        bhi_format_number(&f, r->block_index);
    } else {
        bhi_format_text(&f, "a single block");
    }
    if (r->slot >= 0) {
        bhi_format_text(&f, "; slot ");
        bhi_format_number(&f, (unsigned)r->slot);
    }
    end(&f, out);
}

static void text_heap(const bhi_report_t *r, bhi_report_text_t *out)
{
    bhi_format_t f;
    begin(&f, "heap: ");
    text_number(&f, (unsigned)r->heap, ", kind ");
    bhi_format_text(&f, r->heap_kind != NULL ? r->heap_kind : "not known");
    bhi_format_text(&f, "; owner thread: ");
    bhi_format_text(&f, r->owner != NULL ? r->owner : "not known");
    end(&f, out);
}

static bool same(const char *a, const char *b)
{
    if (a == NULL)
        return false;
    for (; *a == *b && *a != '\0'; a++, b++)
        ;
    return *a == *b;
}

static void text_place(const bhi_report_t *r, bhi_report_text_t *out)
{
    static const struct {
        const char *place, *text;
    } places[] = {
        {"ended page", "of a page that has ended: all its blocks were freed, and no new page is there yet"},
        {"guarded block", "of a guarded block, or a guard beside one"},
        {"unused", "in memory of Bulkhead that holds no block: a guard, or not in use"},
        {"control data", "in Bulkhead's control data"},
        {"stack", "on the stack of this thread"},
        {"small integer", "none: NULL, or a small integer"},
        {"mapping", "in memory that Bulkhead does not own"},
        {"unmapped", "in no mapping of this process"},
    };
    bhi_format_t f;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (same(r->place, places[i].place)) {
            begin(&f, "address: ");
            bhi_format_text(&f, places[i].text);
            end(&f, out);
        }
    }
    if (r->mapping_end == NULL)
        return;
    begin(&f, "mapping: ");
    bhi_format_hex(&f, (uintptr_t)r->mapping_start);
    bhi_format_text(&f, "-");
    bhi_format_hex(&f, (uintptr_t)r->mapping_end);
    bhi_format_text(&f, " ");
    bhi_format_text(&f, r->mapping_access);
    bhi_format_text(&f, " ");
    bhi_format_text(&f, r->mapping_name[0] != '\0' ? r->mapping_name : "(no name)");
    end(&f, out);
}

void bhi_report_details(const bhi_report_t *r, bhi_report_text_t *out)
{
    bhi_format_t f;
    if (r->place == NULL) {
        begin(&f, "address: not Bulkhead's, else unknown: /proc/self/maps cannot be read");
        end(&f, out);
    }
    text_place(r, out);
    if (r->access != NULL) {
        begin(&f, "access: ");
        bhi_format_text(&f, r->access);
        end(&f, out);
    }
    if (r->block != NULL)
        text_block(r, out);
    if (r->page != NULL) {
        text_page(r, out);
        if (r->heap >= 0)
            text_heap(r, out);
    }
    if (r->damage != NULL) {
        begin(&f, "control data of this page contradict themselves: ");
        bhi_format_text(&f, r->damage);
        end(&f, out);
    }
    begin(&f, "thread ");
    text_number(&f, (unsigned)r->thread, r->culprit ? "; its stack is the culprit's" : "; ");
    if (!r->culprit)
        bhi_format_text(&f, "the stack of this thread is the finder's, not necessarily the culprit's");
    end(&f, out);
    bhi_report_stacks(r, out);
    bhi_format_t again;
    bhi_report_again(r, &again);
    if (again.length != 0) {
        begin(&f, "guarding such blocks: ");
        bhi_format_bytes(&f, again.text, again.length);
        end(&f, out);
    }
}

/* --------------------------------------------------------------------- JSON */

void bhi_report_piece(bhi_report_text_t *out, const char *s)
{
    bhi_format_t f;
    bhi_format_start(&f);
    bhi_format_text(&f, s);
    bhi_report_append(out, &f);
}

static void json_key(bhi_report_text_t *out, const char *key)
{
    bhi_report_piece(out, ",\"");
    bhi_report_piece(out, key);
    bhi_report_piece(out, "\":");
}

/* Names of mappings are the only text from outside, and printable by now. */
static void json_string(bhi_report_text_t *out, const char *key, const char *s)
{
    if (s == NULL || *s == '\0')
        return;
    json_key(out, key);
    bhi_report_piece(out, "\"");
    for (; *s != '\0'; s++) {
        char one[3] = {'\\', *s, '\0'};
        bool escape = *s == '"' || *s == '\\';
        bhi_report_piece(out, *s < ' ' || *s > '~' ? "?" : escape ? one : one + 1);
    }
    bhi_report_piece(out, "\"");
}

/* As text: not every reader of JSON keeps 64 bits of a number. */
static void json_address(bhi_report_text_t *out, const char *key, const void *p)
{
    bhi_format_t f;
    json_key(out, key);
    bhi_format_start(&f);
    bhi_format_text(&f, "\"");
    bhi_format_hex(&f, (uintptr_t)p);
    bhi_format_text(&f, "\"");
    bhi_report_append(out, &f);
}

static void json_number(bhi_report_text_t *out, const char *key, int64_t n)
{
    bhi_format_t f;
    json_key(out, key);
    bhi_format_start(&f);
    if (n < 0)
        bhi_format_text(&f, "-");
    bhi_format_number(&f, n < 0 ? 0 - (uint64_t)n : (uint64_t)n);
    bhi_report_append(out, &f);
}

static void json_block(const bhi_report_t *r, bhi_report_text_t *out)
{
    json_address(out, "block", r->block);
    json_number(out, "block_size", (int64_t)r->block_size);
    json_number(out, "usable_size", (int64_t)r->usable_size);
    if (r->requested_size != 0)
        json_number(out, "requested_size", (int64_t)r->requested_size);
    json_number(out, "offset", r->offset);
    json_string(out, "state", r->state);
    json_string(out, "allocated_by", r->allocated_by);
    json_string(out, "released_by", r->released_by);
    json_string(out, "left", r->left);
    json_string(out, "right", r->right);
}

static void json_page(const bhi_report_t *r, bhi_report_text_t *out)
{
    json_address(out, "page", r->page);
    json_number(out, "page_blocks", (int64_t)r->page_blocks);
    json_number(out, "block_index", (int64_t)r->block_index);
    if (r->size_class >= 0)
        json_number(out, "size_class", r->size_class);
    if (r->slot >= 0)
        json_number(out, "slot", r->slot);
    if (r->heap >= 0)
        json_number(out, "heap", r->heap);
    json_string(out, "heap_kind", r->heap_kind);
    json_string(out, "owner", r->owner);
}

void bhi_report_json(const bhi_report_t *r, bhi_report_text_t *out)
{
    bhi_report_piece(out, "{\"bulkhead\":\"ERROR\"");
    json_string(out, "id", r->id);
    json_string(out, "text", r->text);
    json_address(out, "address", r->address);
    json_number(out, "thread", r->thread);
    json_key(out, "fatal");
    bhi_report_piece(out, r->fatal ? "true" : "false");
    json_key(out, "culprit");
    bhi_report_piece(out, r->culprit ? "true" : "false");
    json_string(out, "place", r->place);
    json_string(out, "damage", r->damage);
    if (r->block != NULL)
        json_block(r, out);
    if (r->page != NULL)
        json_page(r, out);
    json_string(out, "access", r->access);
    bhi_report_stacks_json(r, out);
    bhi_format_t again;
    bhi_report_again(r, &again);
    if (again.length != 0) {
        again.text[again.length] = '\0'; /* far from full */
        json_string(out, "again", again.text);
    }
    if (r->mapping_end != NULL) {
        json_address(out, "mapping_start", r->mapping_start);
        json_address(out, "mapping_end", r->mapping_end);
        json_string(out, "mapping_access", r->mapping_access);
        json_string(out, "mapping_name", r->mapping_name);
    }
    bhi_report_piece(out, "}\n");
}
