/* The page of changeable settings; see settings.h. Knows how it is opened and
 * sealed, not what the settings mean. */
#include "rt/settings.h"

#include "os/os.h"

bhi_settings_page_t bhi_settings_page BH_ALIGNED(BH_OS_PAGE_SIZE);

static const uintptr_t page = (uintptr_t)&bhi_settings_page;

void bhi_settings_init(const bhi_options_t *options)
{
    atomic_store_explicit(&bhi_settings.purge_delay, options->purge_delay, memory_order_relaxed);
    bhi_settings.left_open = true; /* as all pages at first */
}

static bool close_page(void)
{
    bhi_settings.left_open = false;
    if (!BH_HARDEN_SETTINGS || bhi_os_protect_read(page, sizeof bhi_settings_page) == 0)
        return true;
    bhi_settings.left_open = true;
    return false;
}

void bhi_settings_protect(void)
{
    if (bhi_settings.left_open) /* a file for reports was opened since, and the page closed */
        close_page();
}

bool bhi_settings_open(void)
{
    if (bhi_settings.sealed || bhi_os_protect_rw(page, sizeof bhi_settings_page) != 0)
        return false;
    bhi_settings.left_open = true;
    return true;
}

void bhi_settings_close(void)
{
    close_page();
}

bool bhi_settings_seal(void)
{
    if (bhi_settings_open())
        bhi_settings.sealed = true;
    /* Where a sandbox forbids mprotect the page stays read-only, and the kernel can
     * still be told to keep it so. */
    bool refused = !bhi_settings.sealed;
    if (bhi_settings.left_open && !close_page())
        return false;
    bool by_kernel = BH_HARDEN_SETTINGS && bhi_os_seal(page, sizeof bhi_settings_page) == 0;
    return by_kernel || !refused;
}
