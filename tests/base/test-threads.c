// The gate, and stores in memory, under threads.
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/gate.h"
#include "io/memory.h"

enum { THREADS = 4, CLOSES = 300 };

struct gated {
    struct rp_gate *gate;
    atomic_bool stop;
    atomic_int inside;
    atomic_ulong passed;
    int plain; // written only by whoever has the gate closed: a race would be seen by ThreadSanitizer
};

static void *pass(void *argument)
{
    struct gated *g = argument;
    while (!atomic_load(&g->stop)) {
        unsigned token = rp_gate_enter(g->gate);
        atomic_fetch_add(&g->inside, 1);
        atomic_fetch_add(&g->passed, (unsigned long)(g->plain >= 0));
        atomic_fetch_sub(&g->inside, 1);
        rp_gate_leave(g->gate, token);
    }
    return NULL;
}

static void *close_often(void *argument)
{
    struct gated *g = argument;
    for (int i = 0; i < CLOSES; i++) {
        rp_gate_close(g->gate);
        if (atomic_load(&g->inside))
            g->plain = -1000000;
        g->plain++;
        rp_gate_open(g->gate);
        sched_yield();
    }
    return NULL;
}

enum { SLOTS = 2, WAITS = 2000 };

// Values that readers use inside; whoever replaces one waits before he spoils it.
struct replaced {
    struct rp_gate *gate;
    atomic_bool stop;
    _Atomic(int *) current;
    int values[SLOTS];
    atomic_ulong wrong, passed;
};

static void *use_current(void *argument)
{
    struct replaced *r = argument;
    while (!atomic_load(&r->stop)) {
        unsigned token = rp_gate_enter(r->gate);
        int *value = atomic_load(&r->current);
        for (int i = 0; i < 20; i++)
            if (*(volatile int *)value != 1)
                atomic_fetch_add(&r->wrong, 1);
        rp_gate_leave(r->gate, token);
        atomic_fetch_add(&r->passed, 1);
    }
    return NULL;
}

static void after_a_wait_nobody_uses_what_was_replaced(void **state)
{
    (void)state;
    struct replaced r = {.gate = rp_gate_new(), .values = {1, 1}};
    atomic_store(&r.current, &r.values[0]);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, use_current, &r);
    for (int i = 0; i < WAITS || atomic_load(&r.passed) < 1000; i++) {
        int *old = atomic_load(&r.current), *fresh = &r.values[old == &r.values[0]];
        *fresh = 1;
        atomic_store(&r.current, fresh);
        rp_gate_wait(r.gate);
        *old = 0; // ThreadSanitizer would see a reader who is still there
        if (i % 64 == 0) {
            rp_gate_close(r.gate);
            rp_gate_open(r.gate);
        }
    }
    atomic_store(&r.stop, true);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&r.wrong), 0);
    rp_gate_free(r.gate);
}

static void nobody_is_inside_a_closed_gate(void **state)
{
    (void)state;
    struct gated g = {.gate = rp_gate_new()};
    pthread_t threads[THREADS], closers[2];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, pass, &g);
    for (int i = 0; i < 2; i++)
        pthread_create(&closers[i], NULL, close_often, &g);
    for (int i = 0; i < 2; i++)
        pthread_join(closers[i], NULL);
    unsigned long before = atomic_load(&g.passed);
    while (atomic_load(&g.passed) == before) // and an open one lets them through again
        sched_yield();
    atomic_store(&g.stop, true);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(g.plain, 2 * CLOSES);
    rp_gate_free(g.gate);
}

struct user {
    struct rp_store *store;
    int number;
};

static void *use_store(void *argument)
{
    struct user *u = argument;
    uint8_t mine[3000], found[sizeof mine];
    for (int round = 1; round < 100; round++) {
        memset(mine, u->number * 60 + round % 50, sizeof mine);
        // neighbours share pages
        if (rp_store_pwrite(u->store, mine, sizeof mine, (uint64_t)u->number * sizeof mine, NULL) ||
            (round % 10 == 0 && rp_store_flush(u->store, NULL)) ||
            rp_store_pread(u->store, found, sizeof found, (uint64_t)u->number * sizeof mine, NULL) ||
            memcmp(mine, found, sizeof mine))
            return u;
    }
    return NULL;
}

static void a_store_in_memory_serves_several_threads(void **state)
{
    (void)state;
    struct rp_store *store = rp_store_memory_new("", 0, "shared");
    pthread_t threads[THREADS];
    struct user users[THREADS];
    for (int i = 0; i < THREADS; i++) {
        users[i] = (struct user){store, i};
        pthread_create(&threads[i], NULL, use_store, &users[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    rp_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_is_inside_a_closed_gate),
        cmocka_unit_test(after_a_wait_nobody_uses_what_was_replaced),
        cmocka_unit_test(a_store_in_memory_serves_several_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
