/* Entry points that programs of target process seldom or never come to otherwise: each is
 * called once, and what it returns is looked at and given back. */
#include "api/kinds.h"
#include "process/process.h"

#include "bulkhead.h"

#include <errno.h>
#include <string.h>

static volatile size_t far_too_much = (size_t)1 << 62; /* the compiler would warn of it */

static bh_heap_t *heap;

/* A block of a form: freshly made, resized, or on a heap. */
static void *make(unsigned form, size_t size)
{
    switch (form) {
    case 0: return bh_mallocn(1, size);
    case 1: return bh_reallocf(bh_malloc(9), size + 1);
    case 2: return bh_rezalloc(bh_malloc(9), size + 1);
    case 3: return bh_recalloc(NULL, 1, size);
    case 4: return bh_aligned_realloc(NULL, 64, size);
    case 5: return bh_aligned_realloc_at(bh_malloc(9), 64, size + 1, 8);
    case 6: return bh_aligned_alloc_at(128, size, 16);
    case 7: return bh_aligned_zalloc_at(32, size, 8);
    case 8: return bh_heap_reallocf(heap, bh_malloc(9), size + 1);
    case 9: return bh_heap_rezalloc(heap, bh_malloc(9), size + 1);
    case 10: return bh_heap_recalloc(heap, bh_malloc(9), 1, size + 1);
    case 11: return bh_heap_aligned_realloc(heap, bh_malloc(9), 64, size + 1);
    case 12: return bh_heap_aligned_alloc_at(heap, 64, size, 8);
    case 13: return bh_heap_aligned_zalloc_at(heap, 64, size, 8);
    case 14: return bh_heap_aligned_realloc_at(heap, bh_malloc(9), 64, size + 1, 8);
    case 15: return bh_heap_realloc(heap, bh_malloc(9), size + 1);
    case 16: return bh_heap_zalloc(heap, size);
    case 17: return bh_zalloc(size);
    case 18: return bh_aligned_zalloc(256, size);
    default: return bh_reallocarray(NULL, 1, size);
    }
}
#define FORMS 20u

static void refused(const void *p)
{
    if (p != NULL || errno != ENOMEM)
        process_found("far too much was handed out, or errno is %d", errno);
}

static void too_much(void)
{
    refused(bh_mallocn(far_too_much, 16));
    refused(bh_reallocarray(NULL, far_too_much, 16));
    refused(bh_reallocf(bh_malloc(9), far_too_much));
    refused(bh_recalloc(NULL, far_too_much, 16));
    refused(bh_aligned_alloc_at(64, far_too_much, 8));
    refused(bh_heap_mallocn(heap, far_too_much, 16));
    refused(bh_heap_calloc(heap, far_too_much, 16));
    refused(bh_heap_reallocarray(heap, NULL, far_too_much, 16));
    refused(bhi_new(far_too_much));
    refused(bhi_new_array(far_too_much));
}

static void text(void)
{
    static const char string[] = "a string of some length";
    char *copies[] = {bh_strdup(string), bh_strndup(string, 100), bh_heap_strdup(heap, string), bh_heap_strndup(heap, string, 100)};
    for (unsigned i = 0; i < sizeof copies / sizeof copies[0]; i++) {
        if (copies[i] == NULL || strcmp(copies[i], string) != 0)
            process_found("a copy of a string is another one");
        bh_free(copies[i]);
    }
    bh_free(bh_strndup(string, 3));
    char *paths[] = {bh_realpath("/usr/..", NULL), bh_heap_realpath(heap, "/usr/..", NULL)};
    for (unsigned i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        if (paths[i] == NULL || strcmp(paths[i], "/") != 0)
            process_found("a path is another one");
        bh_free(paths[i]);
    }
    if (bh_realpath("/no such place", NULL) != NULL)
        process_found("a path to nowhere");
}

static void kinds(size_t size)
{
    bhi_delete(bhi_as_new(bh_malloc(size)));
    bhi_delete_array(bhi_as_new_array(bh_malloc(size)));
    bhi_delete_sized(bhi_new(size), size);
    bhi_delete_array_sized(bhi_new_array(size), size);
    bhi_delete_aligned_sized(bhi_new_aligned(128, size), 128, size);
    bhi_delete_array_aligned_sized(bhi_new_array_aligned(128, size), 128, size);
    bhi_delete(NULL);
    bhi_delete_sized(NULL, size);
}

static void settings(void)
{
    char value[8];
    if (bh_option_get("no_such_option", value, sizeof value) != -1 || bh_option_get_long("profile") != -1)
        process_found("an option that there is not");
    if (bh_option_set("seed", "9") == 0 || bh_option_set("purge_delay", "never") == 0 || bh_option_set("none", "1") == 0)
        process_found("an option that is fixed was changed");
    if (bh_option_get("profile", value, sizeof value) < 4 || bh_version() <= 0)
        process_found("no profile, or no version");
    if (bh_good_size(100) < 100 || bh_usable_size(NULL) != 0 || bh_is_in_heap_region(value) || bh_check_owned(value))
        process_found("a question about nothing");
    void *p = NULL;
    if (bh_posix_memalign(&p, 24, 8) != EINVAL || bh_posix_memalign(&p, 32, 100) != 0)
        process_found("posix_memalign");
    bh_free_aligned_sized(p, 32, 100);
    bh_free_sized(bh_malloc(50), 50);
    bh_free(NULL);
}

void process_rare(unsigned form, size_t size)
{
    heap = bh_heap_new();
    if (heap == NULL)
        process_found("no heap");
    switch (form % (FORMS + 4)) {
    case FORMS: too_much(); break;
    case FORMS + 1: text(); break;
    case FORMS + 2: kinds(size); break;
    case FORMS + 3: settings(); break;
    default: {
        unsigned char *p = make(form % (FORMS + 4), size);
        if (p == NULL)
            process_found("%zu bytes were refused in form %u", size, form);
        memset(p, 7, size);
        bh_free(p);
    }
    }
    if ((form & 0x80) != 0)
        bh_heap_destroy(heap);
    else
        bh_heap_delete(heap);
}
