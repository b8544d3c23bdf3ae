/* A report as text and as one line of JSON. Pure functions of the structure. */
#ifndef BH_RT_REPORT_H
#define BH_RT_REPORT_H

#include "bulkhead.h"
#include "rt/format.h"

typedef bh_report_t bhi_report_t;

/* Room for the longest report there can be without stacks. Small enough
 * for the smallest stack that a thread can have. */
#define BHI_REPORT_MAX 2560
typedef struct bhi_report_text {
    size_t length;
    void (*full)(struct bhi_report_text *text); /* empties it; NULL: what follows is cut */
    char text[BHI_REPORT_MAX];
} bhi_report_text_t;

/* "bulkhead: ERROR: <id>: <text> (address 0x...)" with its newline. */
void bhi_report_first_line(const bhi_report_t *report, bhi_format_t *line);

void bhi_report_append(bhi_report_text_t *out, const bhi_format_t *piece);

void bhi_report_piece(bhi_report_text_t *out, const char *text);

/* Frames of a stack, a line each. */
void bhi_report_frames(bhi_report_text_t *out, const void *const *frames, unsigned n);

/* The stacks of a report: lines, or members (report_stack.c). */
void bhi_report_stacks(const bhi_report_t *report, bhi_report_text_t *out);
void bhi_report_stacks_json(const bhi_report_t *report, bhi_report_text_t *out);

/* "BULKHEAD_OPTIONS=...", under which such blocks are guarded; empty in profiles that
 * are not for hunting (report_again.c). */
void bhi_report_again(const bhi_report_t *report, bhi_format_t *text);

/* The lines after the first, each "bulkhead:   ..."; appended. */
void bhi_report_details(const bhi_report_t *report, bhi_report_text_t *out);

/* One object on one line, with a member for each field that is known; appended. */
void bhi_report_json(const bhi_report_t *report, bhi_report_text_t *out);

#endif
