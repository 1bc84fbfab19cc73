// Messages for the administrator, to standard error: "refpoint: level: text". Thread safe, one line per call.
#ifndef RP_BASE_LOG_H
#define RP_BASE_LOG_H

enum rp_log_level { RP_LOG_ERROR, RP_LOG_WARNING, RP_LOG_INFO, RP_LOG_DEBUG };

// Messages above this level are dropped; RP_LOG_WARNING at start.
void rp_log_set_level(enum rp_log_level level);
// Sends messages elsewhere, as they are: names in them may hold anything. NULL restores standard error, where each is one line.
void rp_log_set_sink(void (*sink)(enum rp_log_level level, const char *text));
void rp_log(enum rp_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
