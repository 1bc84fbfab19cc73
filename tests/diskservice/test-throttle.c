// The limit on bytes per second.
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "diskservice/throttle.h"

static uint64_t ms_since(uint64_t start) { return (rp_clock_monotonic_ns() - start) / 1000000; }

struct payers {
    struct rp_throttle *throttle;
    atomic_bool stop;
    atomic_ulong paid;
    uint64_t size, longest_ms[4];
};

struct payer {
    struct payers *all;
    size_t index;
};

static void *pay_all_the_time(void *argument)
{
    struct payer *payer = argument;
    while (!atomic_load(&payer->all->stop)) {
        uint64_t start = rp_clock_monotonic_ns();
        rp_throttle_wait(payer->all->throttle, payer->all->size);
        atomic_fetch_add(&payer->all->paid, payer->all->size);
        if (ms_since(start) > payer->all->longest_ms[payer->index])
            payer->all->longest_ms[payer->index] = ms_since(start);
    }
    return NULL;
}

static void many_threads_together_keep_the_limit(void **state)
{
    (void)state;
    struct payers all = {.throttle = rp_throttle_new(), .size = 64 << 10};
    struct payer payers[4];
    pthread_t threads[4];
    rp_throttle_set(all.throttle, 8 << 20);
    uint64_t start = rp_clock_monotonic_ns();
    for (size_t i = 0; i < 4; i++) {
        payers[i] = (struct payer){&all, i};
        assert_int_equal(pthread_create(&threads[i], NULL, pay_all_the_time, &payers[i]), 0);
    }
    usleep(600000);
    atomic_store(&all.stop, true);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    uint64_t ms = ms_since(start);
    // never more than the limit, what may be owed and one request per thread; and not much less either
    assert_true(atomic_load(&all.paid) <= (8ull << 20) * (ms + 10) / 1000 + 4 * all.size);
    assert_true(atomic_load(&all.paid) >= (8ull << 20) * ms / 1000 / 16);
    rp_throttle_free(all.throttle);
}

static void a_request_far_over_the_limit_waits_its_longest_and_no_longer(void **state)
{
    (void)state;
    struct rp_throttle *throttle = rp_throttle_new();
    rp_throttle_set(throttle, 1000);
    uint64_t start = rp_clock_monotonic_ns();
    rp_throttle_wait(throttle, (uint64_t)1 << 40);
    assert_true(ms_since(start) >= RP_THROTTLE_MAX_WAIT_MS - 100 && ms_since(start) <= RP_THROTTLE_MAX_WAIT_MS + 60000);
    rp_throttle_free(throttle);
}

static void whoever_waits_passes_when_the_limit_goes(void **state)
{
    (void)state;
    struct payers all = {.throttle = rp_throttle_new(), .size = 1 << 30};
    struct payer payer = {&all, 0};
    pthread_t thread;
    rp_throttle_set(all.throttle, 1 << 20);
    assert_int_equal(pthread_create(&thread, NULL, pay_all_the_time, &payer), 0);
    usleep(100000);
    assert_int_equal(atomic_load(&all.paid), 0);
    atomic_store(&all.stop, true);
    rp_throttle_set(all.throttle, 0);
    uint64_t start = rp_clock_monotonic_ns();
    pthread_join(thread, NULL);
    assert_true(ms_since(start) < 2500);
    rp_throttle_wait(all.throttle, (uint64_t)1 << 60); // and nobody waits without a limit
    assert_true(ms_since(start) < 2500);
    rp_throttle_free(all.throttle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_threads_together_keep_the_limit),
        cmocka_unit_test(a_request_far_over_the_limit_waits_its_longest_and_no_longer),
        cmocka_unit_test(whoever_waits_passes_when_the_limit_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
