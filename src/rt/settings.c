/* The page of changeable settings; see settings.h. */
#include "rt/settings.h"

#include "os/os.h"

bhi_settings_page_t bhi_settings_page BH_ALIGNED(BH_OS_PAGE_SIZE);

bool bhi_settings_change(const bhi_settings_t *to)
{
    uintptr_t page = (uintptr_t)&bhi_settings_page;
    bhi_settings_t copy = *to; /* may be the page's own */
    if (bhi_os_protect_rw(page, sizeof bhi_settings_page) != 0)
        return false;
    bhi_settings = copy;
    if (bhi_os_protect_read(page, sizeof bhi_settings_page) == 0)
        return true;
    /* Nothing to call or to write to may lie on a page that is writable. */
    bhi_settings = (bhi_settings_t){NULL, NULL, false, -1, {0, 0}};
    return false;
}
