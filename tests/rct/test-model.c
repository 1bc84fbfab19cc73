// The tracker against plain arrays, from several threads.
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/num.h"
#include "world.h"

enum { WRITERS = 3, ROUNDS = 400 };

struct writer {
    pthread_t thread;
    struct world *world;
    atomic_bool *stop;
    uint64_t seed;
};

static void *write_on(void *argument)
{
    struct writer *writer = argument;
    struct world *w = writer->world;
    while (!atomic_load(writer->stop)) {
        unsigned token = rp_gate_enter(w->gate);
        uint64_t size = w->size;
        rp_gate_leave(w->gate, token);
        // never at the end alone: the disk may have grown meanwhile, it never shrinks
        uint64_t offset = test_random(&writer->seed) % (size / 512) * 512;
        world_write(w, offset, rp_min64(512 + test_random(&writer->seed) % 100000 / 512 * 512, size - offset));
        // Leaves units unwritten, or everything would always have changed; and the processor to others, who would else find a
        // writer in the middle of the gate each time.
        usleep(20);
    }
    return NULL;
}

struct writers {
    struct writer items[WRITERS];
    atomic_bool stop;
};

static void writers_start(struct writers *writers, struct world *w)
{
    atomic_store(&writers->stop, false);
    for (int i = 0; i < WRITERS; i++) {
        writers->items[i] = (struct writer){.world = w, .stop = &writers->stop, .seed = test_random(&w->seed)};
        pthread_create(&writers->items[i].thread, NULL, write_on, &writers->items[i]);
    }
}

static void writers_stop(struct writers *writers)
{
    atomic_store(&writers->stop, true);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(writers->items[i].thread, NULL);
}

static void operate(struct world *w, unsigned operation)
{
    switch (operation) {
    case 0: case 1: case 2:
        assert_int_equal(world_checkpoint(w, true), 0);
        break;
    case 3: case 4:
        assert_int_equal(world_merge(w, test_random(&w->seed) % w->depth), 0);
        break;
    case 5:
        assert_int_equal(world_merge(w, 0), 0);
        break;
    case 6: case 8: case 9:
        assert_int_equal(world_flush(w), 0);
        break;
    case 10:
        assert_int_equal(world_grow(w, w->size + test_random(&w->seed) % 4096 * 512), 0);
        break;
    default:
        world_check(w);
    }
}

static void a_query_is_exactly_the_touched_units(void **state)
{
    (void)state;
    static struct world w;
    struct writers writers;
    world_start(&w, test_seed(), 40 * RP_MIB + 512);
    for (int round = 0; round < ROUNDS; round++) {
        // Restarts need the writers to stand still, as a VM that is off does; some rounds have none at all.
        bool quiet = test_random(&w.seed) % 3 == 0;
        if (!quiet)
            writers_start(&writers, &w);
        for (unsigned n = test_random(&w.seed) % 4; n > 0; n--)
            operate(&w, test_random(&w.seed) % 12);
        if (!quiet)
            writers_stop(&writers);
        if (test_random(&w.seed) % 4 == 0)
            assert_int_equal(world_reopen(&w), 0);
        else if (test_random(&w.seed) % 20 == 0)
            world_crash(&w, (enum crash)(test_random(&w.seed) % 3));
        world_check(&w);
    }
    world_end(&w);
}

static void a_query_without_changes_is_empty(void **state)
{
    (void)state;
    static struct world w;
    world_start(&w, test_seed(), 40 * RP_MIB);
    world_write_some(&w, &w.seed, 50);
    assert_int_equal(world_checkpoint(&w, true), 0);
    struct rp_rct *chain[] = {w.layers[0].rct, w.layers[1].rct};
    struct rp_ranges changed = {0};
    assert_int_equal(rp_rct_query(chain, 2, &w.ids[0].id, 0, w.size, &changed, NULL), 0);
    assert_int_equal(changed.count, 0);
    assert_false(rp_rct_newer_changes(chain[0]));
    assert_false(rp_rct_newer_changes(chain[1]));
    world_write(&w, 0, 512);
    assert_true(rp_rct_newer_changes(chain[0]));
    rp_ranges_clear(&changed);
    world_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_query_is_exactly_the_touched_units),
        cmocka_unit_test(a_query_without_changes_is_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
