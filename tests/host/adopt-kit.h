// What the tests of vm adopt and vm release share: a domain of the hypervisor of files (fake-hypervisor.c) with images.
#ifndef RP_TESTS_ADOPT_KIT_H
#define RP_TESTS_ADOPT_KIT_H

#include "host-kit.h"
#include "host/local.h"

#define AK_UUID "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
#define AK_SIZE (4 * RP_MIB)

struct ak {
    char *folder;   // has: images, hv (the hypervisor's), host
    char *uri;
    char *xml;      // the domain's definition, as the test made it
    struct rp_host_connection *host;
    struct rp_error err;
};

int ak_setup(void **state);    // *state: a struct ak; the host is open
int ak_teardown(void **state);
void ak_open(struct ak *ak);   // anew
void ak_shell(struct ak *ak, const char *format, ...) __attribute__((format(printf, 2, 3))); // in the folder; must succeed
char *ak_output(struct ak *ak, const char *format, ...) __attribute__((format(printf, 2, 3)));
char *ak_tree(struct ak *ak);  // every file of images, hv and host/vms with its size, times and content
char *ak_file(struct ak *ak, const char *name); // its text; NULL: not there

// <disk> elements of the domain; `format` as qemu-img calls it, `path` below the folder.
char *ak_disk(struct ak *ak, const char *format, const char *path, const char *target);
void ak_define(struct ak *ak, const char *devices); // frees nothing; the domain "web1"
// web1 with vda (raw), vdb (qcow2), vdc (VHDX) and a CD-ROM, each with content of its own.
void ak_web1(struct ak *ak);
char *ak_kept(struct ak *ak);  // the definition that the hypervisor has now

int ak_adopt(struct ak *ak);   // with the error in ak->err
int ak_release(struct ak *ak, const char *format);
// The same; once, while the images are written, the shell runs the command in the folder.
int ak_release_while(struct ak *ak, const char *format, const char *command);
void ak_sql(struct ak *ak, const char *format, ...) __attribute__((format(printf, 2, 3))); // on the host's database; must succeed
// Writes to a disk of the VM through its disk service, started and stopped for it.
void ak_write(struct ak *ak, unsigned number, uint64_t offset, size_t size, uint64_t seed);
// The content of an image by qemu-img (format) or of a VHDX by our own chain (NULL), as a SHA-256.
char *ak_sum(struct ak *ak, const char *format, const char *path);
bool ak_has_vm(struct ak *ak);

// Two malloc'ed texts, which go.
#define assert_same(a, b)                                                                                              \
    do {                                                                                                               \
        RP_AUTO_FREE char *same_a = (a), *same_b = (b);                                                                \
        assert_string_equal(same_a, same_b);                                                                           \
    } while (0)

#endif
