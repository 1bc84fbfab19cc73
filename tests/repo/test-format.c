// Independent readers agree: a program written from docs/formats/repository.md restores what we stored.
#include "place.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "repo/crypto.h"

static const char *mini_reader, *golden;

static void restore_and_compare(const struct place *place, const char *vm, const uint8_t *data, uint64_t size)
{
    char command[700], out[128];
    snprintf(out, sizeof out, "%s/restored", place->folder);
    snprintf(command, sizeof command, "%s%s python3 '%s' '%s' '%s' '%s'", place->encrypted ? "PASSPHRASE=" : "env",
             place->encrypted ? "'" PASSPHRASE "'" : " -u PASSPHRASE", mini_reader, place->repository, vm, out);
    assert_int_equal(system(command), 0);
    assert_int_equal(file_size(out), size);
    uint8_t *restored = malloc(size);
    FILE *file = fopen(out, "rb");
    assert_int_equal(fread(restored, 1, size, file), size);
    fclose(file);
    assert_memory_equal(restored, data, size);
    free(restored);
}

static void a_reader_written_from_the_document_restores_bit_for_bit(void **state)
{
    const struct place *place = *state;
    uint64_t size = 70 * RP_REPO_BLOCK, grown = 300 * RP_REPO_BLOCK + 1536; // a level more
    uint8_t *data = calloc(1, grown + RP_REPO_BLOCK);
    for (uint32_t block = 0; block < 70; block++)
        if (block % 5)
            fill_block(data + block * RP_REPO_BLOCK, block);
    struct rp_repo *repo = place_open(place);
    struct rp_repo_root root = store_disk(repo, NULL, data, size, "first", NULL);
    uint8_t *first = malloc(size);
    memcpy(first, data, size);
    for (uint32_t block = 40; block <= 300; block += 7)
        fill_block(data + block * RP_REPO_BLOCK, block + 1000);
    memset(data + grown, 0, RP_REPO_BLOCK - 1536);
    struct rp_repo_root larger = store_disk(repo, &root, data, grown, "second", NULL);
    assert_disk(repo, &larger, data);
    rp_repo_close(repo);
    restore_and_compare(place, "first", first, size);
    restore_and_compare(place, "second", data, grown);
    free(first);
    free(data);
}

// tests/repo/golden-1 was written when the format was made, with the passphrase "golden". It must stay readable for ever.
static void a_repository_written_by_the_first_version_is_read(void **state)
{
    static const char expected[] = "80eb2ab3606b65b12de5ee009a50b429a1ef16ff8d2575132c501d577af19d63";
    const struct place *place = *state;
    struct rp_error err = {0};
    struct rp_points points;
    struct rp_backend *backend = rp_backend_directory_open(golden, false, &err);
    assert_ok(backend ? 0 : -1, err);
    struct rp_repo *repo = rp_repo_open(backend, "golden", place->cache, &err);
    assert_ok(repo ? 0 : -1, err);
    assert_ok(rp_repo_points(repo, &points, &err), err);
    assert_int_equal(points.count, 1);
    assert_string_equal(points.items[0].vm_name, "golden");
    const struct rp_repo_root *root = &points.items[0].disks[0].root;
    uint8_t *data = malloc(root->size), digest[32];
    char hex[RP_HEX(32)];
    assert_ok(rp_repo_read(repo, root, 0, data, root->size, &err), err);
    rp_crypto_sha256(data, root->size, digest);
    assert_string_equal(rp_hex(digest, 32, hex), expected);
    assert_clean(repo, true);
    rp_points_clear(&points);
    rp_repo_close(repo);
    free(data);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "test-repo-format MINI-READER GOLDEN-REPOSITORY\n");
        return 2;
    }
    mini_reader = argv[1];
    golden = argv[2];
    const struct CMUnitTest tests[] = {
        {"a reader written from the document restores an encrypted repository bit for bit",
         a_reader_written_from_the_document_restores_bit_for_bit, place_setup, place_teardown, NULL},
        {"a reader written from the document restores an unencrypted repository bit for bit",
         a_reader_written_from_the_document_restores_bit_for_bit, place_setup_unencrypted, place_teardown, NULL},
        cmocka_unit_test_setup_teardown(a_repository_written_by_the_first_version_is_read, place_setup, place_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
