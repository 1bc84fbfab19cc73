// What the driver of a scenario writes into the log between the changes that the programs make (LOG_NOTE, record/log.h): all
// that anybody outside the programs knows about them. The oracle is built from these alone.
#ifndef RP_TESTS_SOAK_NOTES_H
#define RP_TESTS_SOAK_NOTES_H

#include "../record/log.h"

enum note_kind {
    NOTE_VM = 1,        // the VM is made; text: its id
    NOTE_SIZE_BEGIN,    // disk, length: is about to become so large
    NOTE_SIZE,          // …is
    NOTE_ISSUE,         // disk, number, what (enum op_kind), ok: with FUA; offset, length: a request is sent
    NOTE_ACK,           // disk, number
    NOTE_FLUSH_BEGIN,   // disk; UINT32_MAX: a stop of the VM, which makes everything durable
    NOTE_FLUSH,         // disk; offset: the index of the BEGIN
    NOTE_BACKUP_BEGIN,
    NOTE_BACKUP,        // ok; text: the restore point; offset: the index of the BEGIN
    NOTE_POINT,         // text: the restore point; disk; other: tracking id; then a value for each sector of the disk
    NOTE_CHECKPOINT_BEGIN, // text: its name
    NOTE_CHECKPOINT,    // ok; text; offset: the index of the BEGIN
    NOTE_DELETE_BEGIN,  // text: the name of a checkpoint
    NOTE_DELETE,        // ok; text
    NOTE_KILLED,        // text: what; "power": everything, and what the kernel had not written is lost
    NOTE_FOUND,         // disk; then a value for each sector: what stands there after a kill
    NOTE_START,         // the VM's disk service was started
};

enum op_kind { OP_WRITE, OP_ZERO, OP_TRIM };

struct note {
    uint32_t disk, number, what, ok;
    uint64_t offset, length;
    char text[80], other[80];
};

#endif
