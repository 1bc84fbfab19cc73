// The language of the lab's fault script (docs/lab.md): one line, one fault or one deed. Pure functions on text.
#ifndef RP_HOSTD_LAB_SCRIPT_H
#define RP_HOSTD_LAB_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define RP_LAB_NAME 300   // of a VM, NUL included
#define RP_LAB_TEXT 500   // of an error, NUL included

enum rp_lab_action {
    RP_LAB_RETURNS,       // the method returns `code`, and nothing is done
    RP_LAB_DROPS,         // it is carried out, and the connection ends instead of the answer
    RP_LAB_WAITS,         // its answer comes `seconds` later
    RP_LAB_HANGS,         // its job stays at `percent`, for `seconds` (0: until it is released or cancelled)
    RP_LAB_FAILS,         // its job fails at `percent` with `text`
    RP_LAB_FULL,          // the same, as if the disk had no room
    RP_LAB_FREEZE,        // the guest refuses to freeze: an application-consistent one fails with `text`
    RP_LAB_LOSES,         // a reference point of the VM vanishes before
};
enum rp_lab_which { RP_LAB_NEWEST, RP_LAB_OLDEST, RP_LAB_EVERY };

struct rp_lab_fault {
    char method[64];      // as the caller of the parser spells it; "": any answer
    char vm[RP_LAB_NAME]; // name or id; "": any
    unsigned skip;        // so many calls pass first
    unsigned times;       // and so many are hit; 0: all
    enum rp_lab_action action;
    enum rp_lab_which which;
    uint32_t code;
    unsigned percent;
    double seconds;
    char text[RP_LAB_TEXT];
};
enum rp_lab_deed {
    RP_LAB_NOTHING,       // a blank line, or a comment
    RP_LAB_FAULT,         // `fault`
    RP_LAB_LOSE,          // fault.which, of fault.vm
    RP_LAB_WRITE,         // the guest of fault.vm (all) writes `count` blocks to every disk, and flushes
    RP_LAB_STOP, RP_LAB_GO, // the guests' own writing
    RP_LAB_RELEASE,       // jobs that hang go on
    RP_LAB_FORGET,        // faults that have not happened are taken back
    RP_LAB_LIST,          // which are there
};
struct rp_lab_line {
    enum rp_lab_deed deed;
    struct rp_lab_fault fault;
    unsigned count;
};

// `method` gives the spelling of a method's name in any case, NULL for one that the host does not have. RP_ERR_INVALID
// says what is wrong, without line number.
int rp_lab_parse(const char *text, const char *(*method)(const char *name), struct rp_lab_line *line,
                 struct rp_error *err);

#endif
