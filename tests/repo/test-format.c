// Independent readers agree: a program written from docs/formats/repository.md restores what we stored.
#include "place.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *mini_reader;

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

int main(int argc, char **argv)
{
    assert_true(argc == 2);
    mini_reader = argv[1];
    const struct CMUnitTest tests[] = {
        {"a reader written from the document restores an encrypted repository bit for bit",
         a_reader_written_from_the_document_restores_bit_for_bit, place_setup, place_teardown, NULL},
        {"a reader written from the document restores an unencrypted repository bit for bit",
         a_reader_written_from_the_document_restores_bit_for_bit, place_setup_unencrypted, place_teardown, NULL},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
