// What the administrator should know though the work is good.
#ifndef RP_BACKUP_REMARK_H
#define RP_BACKUP_REMARK_H

// To `remark`, as one text; NULL: to the log, as a warning.
void rp_remark(void (*remark)(void *context, const char *text), void *context, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
