// A fresh folder with a repository and a cache in it, and disks to store there.
#ifndef TESTS_REPO_PLACE_H
#define TESTS_REPO_PLACE_H

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "repo/repo.h"

#define PASSPHRASE "correct horse"

struct place {
    char folder[64];     // everything
    char repository[80]; // the repository
    char cache[80];
    bool encrypted;
};
int place_setup(void **state);           // cmocka: *state = struct place with an empty encrypted repository
int place_setup_unencrypted(void **state);
int place_teardown(void **state);
struct rp_repo *place_open(const struct place *place);
void place_remove_cache(const struct place *place);

#define assert_ok(call, err) assert_ok_((call), &(err), #call, __FILE__, __LINE__)
void assert_ok_(int result, const struct rp_error *err, const char *call, const char *file, int line);

void log_off(void); // warnings are expected

uint32_t test_seed(void); // RP_TEST_SEED, or a new one; printed once
uint32_t next_random(uint32_t *state);
// One block: a mix of random, text-like and repeated content that follows from `seed`; never all zeros.
void fill_block(uint8_t *block, uint32_t seed);

// Stores `data` as one disk in one session, on `base` (NULL: none), with a point named `name`.
struct rp_repo_root store_disk(struct rp_repo *repo, const struct rp_repo_root *base, const uint8_t *data, uint64_t size,
                               const char *name, char point_id[RP_POINT_ID]);
// The same, whole and under the name "vm", where anything may fail. 0: committed.
int try_backup(struct rp_repo *repo, const uint8_t *data, uint64_t size, struct rp_error *err);
size_t count_points(struct rp_repo *repo);
void point_of(struct rp_point *point, const char *name, const struct rp_repo_root *root);
void assert_disk(struct rp_repo *repo, const struct rp_repo_root *root, const uint8_t *data);
// rp_repo_check without findings.
void assert_clean(struct rp_repo *repo, bool read_data);
void assert_refused_base(struct rp_repo *repo, const struct rp_repo_root *root); // a new tree is not built on it

// The path of the only (or first) pack in the repository; and of any object.
void first_pack(const struct place *place, char path[256]);
// The path of the largest segment in the cache.
void largest_segment(const struct place *place, char path[300]);
unsigned count_files(const char *folder);
// What a lease of another machine looks like, renewed `age` seconds ago. `status`: "held" or "free".
void place_put_lease(struct rp_repo *repo, const char *folder, const char *generation, const char *status, int age);
// Changes a file that exists.
void flip_bit(const char *path, uint64_t bit);
uint64_t file_size(const char *path);

#endif
