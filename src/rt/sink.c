/* Sinks of reports; see sink.h. */
#include "rt/sink.h"

#include "os/os.h"
#include "rt/format.h"
#include "rt/process.h"
#include "rt/settings.h"

#include <string.h>

#define SYSLOG "/dev/log"
#define SYSLOG_PRIORITY "<10>" /* facility user, severity critical: RFC 5424, 6.2.1 */

static void to_syslog(const char *text, size_t length)
{
    while (length > 0) {
        size_t n = 0;
        while (n < length && text[n] != '\n')
            n++;
        /* A line of JSON is longer than a formatter's buffer. */
        char line[2048];
        bhi_format_t head;
        bhi_format_start(&head);
        bhi_format_text(&head, SYSLOG_PRIORITY "bulkhead[");
        bhi_format_number(&head, (unsigned)bhi_os_pid());
        bhi_format_text(&head, "]: ");
        size_t body = n < sizeof line - head.length ? n : sizeof line - head.length;
        memcpy(line, head.text, head.length);
        memcpy(line + head.length, text, body);
        bhi_os_send(SYSLOG, line, head.length + body);
        n += n < length;
        text += n;
        length -= n;
    }
}

/* The program may have closed it, and opened something else that got its number. */
static bool is_still_the_file(void)
{
    uint64_t now[2];
    return bhi_settings.has_file && bhi_os_file_identity(bhi_settings.report_file, now) == 0 &&
           now[0] == bhi_settings.file_identity[0] && now[1] == bhi_settings.file_identity[1];
}

void bhi_sink_write(const char *text, size_t length)
{
    const bhi_options_t *options = &bhi_process.options;
    bhi_os_write(2, text, length);
    if (!bhi_process.ready)
        return;
    if (options->log_fd != BHI_LOG_FD_NONE && options->log_fd != 2)
        bhi_os_write((int)options->log_fd, text, length);
    if (is_still_the_file())
        bhi_os_write(bhi_settings.report_file, text, length);
    if (options->syslog != 0)
        to_syslog(text, length);
}

bool bhi_report_open_file(const char *path)
{
    uint64_t identity[2];
    int fd = bhi_os_file_append(path);
    if (fd < 0)
        return false;
    if (bhi_os_file_identity(fd, identity) != 0 || !bhi_settings_open()) {
        bhi_os_file_close(fd);
        return false;
    }
    if (bhi_settings.has_file)
        bhi_os_file_close(bhi_settings.report_file);
    bhi_settings.has_file = true;
    bhi_settings.report_file = fd;
    memcpy(bhi_settings.file_identity, identity, sizeof identity);
    bhi_settings_close();
    return true;
}
