// pairs URI URI PAIRS: 4 KiB random writes over NBD, 32 on their way at a time, to two disks in turns of 40 ms, each pair forty
// turns of both in changing order: what slows the machine down for longer than that slows both. Prints a line of JSON: for each
// pair the writes per second of both.
#include <stdbool.h>
#include <string.h>

#include "load.h"

enum { BLOCK = 4096, DEPTH = 32, TURNS = 40 };
static const double TURN_S = 0.04;

struct side {
    struct nbd_handle *nbd;
    uint64_t blocks, random;
    unsigned on_way;
    uint64_t writes; // of this pair
    double seconds;
};

static int done(void *context, int *error)
{
    struct side *side = context;
    if (*error) {
        fprintf(stderr, "pairs: a write failed: %s\n", strerror(*error));
        exit(1);
    }
    side->on_way--;
    side->writes++;
    return 1;
}

static void take_turn(struct side *side)
{
    static uint8_t data[BLOCK];
    double start = now();
    for (bool over = false; !over || side->on_way; over = over || now() - start > TURN_S) {
        while (!over && side->on_way < DEPTH) {
            nbd_completion_callback callback = {.callback = done, .user_data = side};
            if (nbd_aio_pwrite(side->nbd, data, BLOCK, next_random(&side->random) % side->blocks * BLOCK, callback, 0) < 0)
                die("write");
            side->on_way++;
        }
        if (nbd_poll(side->nbd, -1) < 0)
            die("poll");
    }
    side->seconds += now() - start;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: pairs URI URI PAIRS\n");
        return 3;
    }
    struct side sides[2] = {0};
    for (int i = 0; i < 2; i++) {
        sides[i].nbd = nbd_create();
        if (!sides[i].nbd || nbd_connect_uri(sides[i].nbd, argv[1 + i]) < 0)
            die(argv[1 + i]);
        sides[i].blocks = (uint64_t)nbd_get_size(sides[i].nbd) / BLOCK;
        sides[i].random = 1;
        take_turn(&sides[i]);
    }
    int pairs = atoi(argv[3]);
    for (int pair = 0; pair < pairs; pair++) {
        for (int i = 0; i < 2; i++) {
            sides[i].writes = 0;
            sides[i].seconds = 0;
        }
        for (int turn = 0; turn < TURNS; turn++)
            for (int i = 0; i < 2; i++)
                take_turn(&sides[(turn + i) % 2]);
        printf("%s[%.1f, %.1f]", pair ? ", " : "[", (double)sides[0].writes / sides[0].seconds,
               (double)sides[1].writes / sides[1].seconds);
    }
    printf("]\n");
    for (int i = 0; i < 2; i++) {
        nbd_shutdown(sides[i].nbd, 0);
        nbd_close(sides[i].nbd);
    }
    return 0;
}
