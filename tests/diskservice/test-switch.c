// What happens while the chain record of a checkpoint is on its way to the disk: a file system that holds it there.
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "diskservice/control.h"
#include "diskservice/server.h"
#include "diskservice/socket.h"
#include "io/memory.h"
#include "vm.h"

// Everything goes straight to files in memory; of the writes of the chain record, `pass` go through, the next one waits to be
// released, and may then be refused.
static struct {
    struct rp_fs *memory;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int pass;     // -1: all
    bool waiting; // one is held
    bool refuse;
} hold = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .pass = -1};

struct held_store {
    struct rp_store store;
    struct rp_store *below;
};

static struct rp_store *below(struct rp_store *store) { return ((struct held_store *)store)->below; }

static int held_pwrite(struct rp_store *store, const void *data, size_t size, uint64_t offset, struct rp_error *err)
{
    pthread_mutex_lock(&hold.lock);
    if (hold.pass > 0) {
        hold.pass--;
    } else if (hold.pass == 0) {
        hold.waiting = true;
        pthread_cond_broadcast(&hold.changed);
        while (hold.pass == 0)
            pthread_cond_wait(&hold.changed, &hold.lock);
        hold.waiting = false;
    }
    bool refused = hold.refuse;
    pthread_mutex_unlock(&hold.lock);
    return refused ? rp_fail(err, RP_ERR_IO, "refused") : rp_store_pwrite(below(store), data, size, offset, err);
}

static int held_pread(struct rp_store *store, void *data, size_t size, uint64_t offset, struct rp_error *err)
{
    return rp_store_pread(below(store), data, size, offset, err);
}
static int held_flush(struct rp_store *store, struct rp_error *err) { return rp_store_flush(below(store), err); }
static int held_size(struct rp_store *store, uint64_t *size, struct rp_error *err)
{
    return rp_store_size(below(store), size, err);
}
static void held_close(struct rp_store *store)
{
    rp_store_close(below(store));
    free(store);
}

static struct rp_store *held_open(struct rp_fs *fs, const char *path, unsigned flags, struct rp_error *err)
{
    static const struct rp_store_ops ops = {
        .pread = held_pread, .pwrite = held_pwrite, .flush = held_flush, .size = held_size, .close = held_close};
    (void)fs;
    struct rp_store *store = rp_fs_open(hold.memory, path, flags, err);
    if (!store || strcmp(rp_path_name(path), RP_RECORD_NAME))
        return store;
    struct held_store *held = rp_xcalloc(1, sizeof *held);
    *held = (struct held_store){{&ops, rp_xstrdup(path)}, store};
    return &held->store;
}
static int held_rename(struct rp_fs *fs, const char *from, const char *to, struct rp_error *err)
{
    (void)fs;
    return rp_fs_rename(hold.memory, from, to, err);
}
static int held_unlink(struct rp_fs *fs, const char *path, struct rp_error *err)
{
    (void)fs;
    return rp_fs_unlink(hold.memory, path, err);
}
static int held_sync(struct rp_fs *fs, const char *directory, struct rp_error *err)
{
    (void)fs;
    return hold.memory->ops->sync_directory(hold.memory, directory, err);
}
static int held_exists(struct rp_fs *fs, const char *path, bool *exists, struct rp_error *err)
{
    (void)fs;
    return rp_fs_exists(hold.memory, path, exists, err);
}

static const struct rp_fs_ops held_ops = {held_open, held_rename, held_unlink, held_sync, held_exists};
static struct rp_fs held_fs = {&held_ops};

static void set(int pass, bool refuse)
{
    pthread_mutex_lock(&hold.lock);
    hold.pass = pass;
    hold.refuse = refuse;
    pthread_cond_broadcast(&hold.changed);
    pthread_mutex_unlock(&hold.lock);
}

static void wait_until_held(void)
{
    pthread_mutex_lock(&hold.lock);
    while (!hold.waiting)
        pthread_cond_wait(&hold.changed, &hold.lock);
    pthread_mutex_unlock(&hold.lock);
}

struct call {
    struct rp_engine *engine;
    struct rp_guid operation;
    pthread_t thread;
    atomic_bool returned;
    int failed;
};

static void *call_checkpoint(void *argument)
{
    struct call *call = argument;
    struct rp_engine_checkpoint result;
    call->failed = rp_engine_checkpoint(call->engine, &call->operation, &result, NULL);
    rp_engine_checkpoint_clear(&result);
    atomic_store(&call->returned, true);
    return NULL;
}

static void *call_flush(void *argument)
{
    struct call *call = argument;
    call->failed = rp_engine_flush(call->engine, 0, NULL);
    atomic_store(&call->returned, true);
    return NULL;
}

static struct call *start(struct rp_engine *engine, void *(*function)(void *))
{
    struct call *call = rp_xcalloc(1, sizeof *call);
    call->engine = engine;
    call->operation = vm_operation();
    assert_int_equal(pthread_create(&call->thread, NULL, function, call), 0);
    return call;
}

static void finish(struct call *call, int expected)
{
    pthread_join(call->thread, NULL);
    assert_int_equal(call->failed, expected);
    free(call);
}

struct fixture {
    struct rp_engine *engine;
    struct model model;
    struct call *checkpoint;
};

// A disk with something in it; nothing is held.
static void open_disk(struct fixture *f)
{
    hold.memory = rp_fs_memory_new();
    set(-1, false);
    vm_create(&held_fs, VM_DIRECTORY, 1, 4 << 20);
    f->engine = vm_open(&held_fs, VM_DIRECTORY);
    model_new(&f->model, 4 << 20);
    assert_int_equal(model_write(&f->model, f->engine, 0, 0, 32, 1), 0);
}

// A checkpoint has switched the guest to new leaves, and its record is about to be written.
static void set_up(struct fixture *f)
{
    open_disk(f);
    set(1, false); // the first one lists the files to come
    f->checkpoint = start(f->engine, call_checkpoint);
    wait_until_held();
    RP_AUTO_FREE char *leaf = vm_leaf(f->engine, 0);
    assert_string_not_equal(leaf, VM_DIRECTORY "/disk0.vhdx");
}

static void tear_down(struct fixture *f, int expected)
{
    assert_int_equal(rp_engine_close(f->engine, NULL), expected);
    model_free(&f->model);
    rp_fs_memory_free(hold.memory);
}

static void the_guest_works_on_while_a_checkpoint_is_made_durable(void **state)
{
    (void)state;
    struct fixture f;
    set_up(&f);
    assert_int_equal(model_write(&f.model, f.engine, 0, 16, 32, 2), 0);
    model_check(&f.model, f.engine, 0);
    // the frozen file is nobody's to read yet
    struct rp_error err = {0};
    assert_null(rp_vhdx_open(&held_fs, VM_DIRECTORY "/disk0.vhdx", RP_VHDX_READ, NULL, &err));
    assert_int_equal(err.code, RP_ERR_BUSY);
    assert_false(atomic_load(&f.checkpoint->returned));
    set(-1, false);
    finish(f.checkpoint, 0);
    struct rp_vhdx *frozen = rp_vhdx_open(&held_fs, VM_DIRECTORY "/disk0.vhdx", RP_VHDX_READ, NULL, NULL);
    assert_non_null(frozen);
    rp_vhdx_abandon(frozen);
    tear_down(&f, 0);
}

static void a_flush_waits_for_the_record_that_names_its_leaf(void **state)
{
    (void)state;
    struct fixture f;
    set_up(&f);
    assert_int_equal(model_write(&f.model, f.engine, 0, 16, 32, 2), 0);
    struct call *flush = start(f.engine, call_flush);
    usleep(100000);
    assert_false(atomic_load(&flush->returned));
    set(-1, false);
    finish(flush, 0);
    finish(f.checkpoint, 0);
    // what was flushed is there after a power cut, in the leaf that the record names
    rp_engine_abandon(f.engine);
    rp_fs_memory_cut(hold.memory);
    f.engine = vm_open(&held_fs, VM_DIRECTORY);
    model_check(&f.model, f.engine, 0);
    tear_down(&f, 0);
}

static void a_flush_fails_when_the_record_cannot_be_written(void **state)
{
    (void)state;
    struct fixture f;
    struct model before;
    set_up(&f);
    model_copy(&before, &f.model);
    assert_int_equal(model_write(&f.model, f.engine, 0, 16, 32, 2), 0);
    struct call *flush = start(f.engine, call_flush);
    set(-1, true);
    finish(flush, -1);
    finish(f.checkpoint, -1);
    // for good, also when the disk would take it again; but the guest still reads what it wrote
    set(-1, false);
    assert_int_equal(rp_engine_flush(f.engine, 0, NULL), -1);
    uint8_t sector[512] = {0};
    assert_int_equal(rp_engine_write(f.engine, 0, sector, 512, 0, true, NULL), -1);
    rp_engine_write(f.engine, 0, sector, 512, 0, false, NULL);
    struct rp_engine_checkpoint result;
    struct rp_guid operation = vm_operation();
    assert_int_equal(rp_engine_checkpoint(f.engine, &operation, &result, NULL), -1);
    assert_int_equal(vm_merge(f.engine, VM_DIRECTORY "/disk0.vhdx", NULL), -1);
    // a clean end is impossible; the next start finds the disk as the record names it
    assert_int_equal(rp_engine_close(f.engine, NULL), -1);
    f.engine = vm_open(&held_fs, VM_DIRECTORY);
    RP_AUTO_FREE char *leaf = vm_leaf(f.engine, 0);
    assert_string_equal(leaf, VM_DIRECTORY "/disk0.vhdx");
    model_check(&before, f.engine, 0);
    model_free(&before);
    tear_down(&f, 0);
}

static void a_merge_whose_record_cannot_be_written_leaves_the_disk_whole(void **state)
{
    (void)state;
    struct fixture f;
    set_up(&f);
    assert_int_equal(model_write(&f.model, f.engine, 0, 16, 32, 2), 0);
    set(-1, false);
    finish(f.checkpoint, 0);
    assert_int_equal(rp_engine_flush(f.engine, 0, NULL), 0);
    RP_AUTO_FREE char *leaf = vm_leaf(f.engine, 0);
    set(-1, true);
    assert_int_equal(vm_merge(f.engine, leaf, NULL), -1);
    set(-1, false);
    model_check(&f.model, f.engine, 0);
    assert_int_equal(rp_engine_flush(f.engine, 0, NULL), -1); // which leaf the record names, nobody can say
    assert_int_equal(rp_engine_close(f.engine, NULL), -1);
    f.engine = vm_open(&held_fs, VM_DIRECTORY);
    model_check(&f.model, f.engine, 0);
    assert_int_equal(vm_merge(f.engine, leaf, NULL), 0);
    model_check(&f.model, f.engine, 0);
    tear_down(&f, 0);
}

// ---- who froze the guest for a checkpoint is told when he may thaw it -----------------------------------------------

// A guest's thaw that flushes, as that of ext4 does, when the client of the control socket hears that the pause is over.
struct thaw {
    struct rp_engine *engine;
    const char *folder;
    struct rp_guid operation;
    pthread_t thread;
    atomic_uint told, thawed;
    int failed;
};

static void thaw_with_a_flush(void *context)
{
    struct thaw *thaw = context;
    atomic_fetch_add(&thaw->told, 1);
    rp_engine_flush(thaw->engine, 0, NULL);
    atomic_fetch_add(&thaw->thawed, 1);
}

static void *ask_for_checkpoint(void *argument)
{
    struct thaw *thaw = argument;
    struct rp_engine_checkpoint result;
    struct rp_service *service = rp_service_open(rp_fs_posix(), thaw->folder, NULL);
    thaw->failed = rp_service_checkpoint(service, &thaw->operation, thaw_with_a_flush, thaw, &result, NULL);
    rp_engine_checkpoint_clear(&result);
    rp_service_close(service, NULL);
    return NULL;
}

// Its engine answers on a socket in `folder`, which is made.
static struct rp_server *set_up_served(struct fixture *f, char *folder, struct rp_server_clients *clients)
{
    open_disk(f);
    assert_non_null(mkdtemp(folder));
    struct rp_server *server = rp_server_start(f->engine, folder, clients, NULL);
    assert_non_null(server);
    return server;
}

static void a_thaw_that_flushes_is_told_before_the_record_and_ends_after_it(void **state)
{
    (void)state;
    struct fixture f = {0};
    char folder[] = "/tmp/test-switch-XXXXXX";
    struct rp_server_clients clients = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct rp_server *server = set_up_served(&f, folder, &clients);

    struct thaw thaw = {.engine = f.engine, .folder = folder, .operation = vm_operation()};
    set(1, false);
    assert_int_equal(pthread_create(&thaw.thread, NULL, ask_for_checkpoint, &thaw), 0);
    wait_until_held(); // the pause is over, nothing is durable
    for (int i = 0; i < 60000 && !atomic_load(&thaw.told); i++)
        usleep(1000);
    assert_int_equal(atomic_load(&thaw.told), 1);
    assert_int_equal(atomic_load(&thaw.thawed), 0);
    set(-1, false);
    pthread_join(thaw.thread, NULL); // would wait for ever if the record waited for the thaw
    assert_int_equal(thaw.failed, 0);
    assert_int_equal(atomic_load(&thaw.thawed), 1);

    // asked again, it has happened already
    ask_for_checkpoint(&thaw);
    assert_int_equal(thaw.failed, 0);
    assert_int_equal(atomic_load(&thaw.told), 2);
    // and one that fails before its pause tells nobody
    thaw.operation = vm_operation();
    set(-1, true);
    ask_for_checkpoint(&thaw);
    assert_int_equal(thaw.failed, -1);
    assert_int_equal(atomic_load(&thaw.told), 2);
    set(-1, false);
    rp_server_stop(server);
    rmdir(folder);
    tear_down(&f, 0);
}

// Its thread is stuck in a send that nobody takes.
static void a_client_that_does_not_take_its_answers_does_not_keep_the_server_from_ending(void **state)
{
    (void)state;
    struct fixture f = {0};
    char folder[] = "/tmp/test-switch-XXXXXX";
    struct rp_server_clients clients = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct rp_server *server = set_up_served(&f, folder, &clients);
    RP_AUTO_FREE char *path = rp_path_join(folder, RP_CONTROL_SOCKET);
    RP_AUTO_FD int fd = rp_socket_connect(path, NULL);
    assert_true(fd >= 0);
    static const char nonsense[] = "nonsense\n"; // each is refused, with a reason
    unsigned full = 0;
    for (unsigned i = 0; i < 1000000 && full < 300; i++) {
        bool sent = send(fd, nonsense, sizeof nonsense - 1, MSG_DONTWAIT | MSG_NOSIGNAL) > 0;
        full = sent ? 0 : full + 1; // for three seconds: it does not read any more either
        if (!sent)
            usleep(10000);
    }
    assert_int_equal(full, 300);
    uint64_t began = rp_clock_monotonic_ns();
    rp_server_stop(server);
    assert_in_range(rp_clock_monotonic_ns() - began, 1000000000, 60000000000);
    rmdir(folder);
    tear_down(&f, 0);
}

static void count_call(void *context) { ++*(unsigned *)context; }

static void a_checkpoint_whose_record_fails_has_told_that_the_pause_is_over(void **state)
{
    (void)state;
    struct fixture f;
    set_up(&f);
    set(-1, true);
    struct rp_guid operation = f.checkpoint->operation;
    finish(f.checkpoint, -1);
    unsigned told = 0;
    struct rp_engine_checkpoint result;
    // the guest is in the new leaves: who asks again must not keep it frozen, whatever the answer is
    assert_int_equal(rp_engine_checkpoint_tell(f.engine, &operation, count_call, &told, &result, NULL), -1);
    assert_int_equal(told, 1);
    operation = vm_operation();
    assert_int_equal(rp_engine_checkpoint_tell(f.engine, &operation, count_call, &told, &result, NULL), -1);
    assert_int_equal(told, 1);
    set(-1, false);
    tear_down(&f, -1);
}

// A service of before: it knows nothing of the wish, and answers only.
static void *answer_once(void *argument)
{
    int listener = *(int *)argument;
    RP_CLEANUP(rp_buf_clear) struct rp_buf rest = {0}, line = {0}, out = {0};
    RP_AUTO_FREE struct rp_control_reply *reply = rp_xcalloc(1, sizeof *reply);
    struct rp_control_request request = {0};
    int fd = accept(listener, NULL, NULL);
    if (rp_socket_read_line(fd, RP_CONTROL_MAX_REQUEST, &rest, &line, NULL) == 1 &&
        !rp_control_parse_request((const char *)line.data, line.size, &request, NULL)) {
        rp_control_format_reply(&request, reply, &out);
        rp_socket_write(fd, out.data, out.size, NULL);
    }
    close(fd);
    return NULL;
}

static void the_answer_of_an_older_service_lets_the_guest_go(void **state)
{
    (void)state;
    char folder[] = "/tmp/test-switch-XXXXXX";
    assert_non_null(mkdtemp(folder));
    RP_AUTO_FREE char *path = rp_path_join(folder, RP_CONTROL_SOCKET);
    int listener = rp_socket_listen(path, NULL);
    assert_true(listener >= 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, answer_once, &listener), 0);
    struct rp_service *service = rp_service_open(rp_fs_posix(), folder, NULL);
    struct rp_engine_checkpoint result;
    struct rp_guid operation = vm_operation();
    unsigned told = 0;
    assert_int_equal(rp_service_checkpoint(service, &operation, count_call, &told, &result, NULL), 0);
    assert_int_equal(told, 1);
    pthread_join(thread, NULL);
    rp_service_close(service, NULL);
    close(listener);
    unlink(path);
    rmdir(folder);
}

static void say_nothing(enum rp_log_level level, const char *text)
{
    (void)level;
    (void)text;
}

int main(void)
{
    rp_log_set_sink(say_nothing);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_guest_works_on_while_a_checkpoint_is_made_durable),
        cmocka_unit_test(a_flush_waits_for_the_record_that_names_its_leaf),
        cmocka_unit_test(a_flush_fails_when_the_record_cannot_be_written),
        cmocka_unit_test(a_merge_whose_record_cannot_be_written_leaves_the_disk_whole),
        cmocka_unit_test(a_thaw_that_flushes_is_told_before_the_record_and_ends_after_it),
        cmocka_unit_test(a_client_that_does_not_take_its_answers_does_not_keep_the_server_from_ending),
        cmocka_unit_test(a_checkpoint_whose_record_fails_has_told_that_the_pause_is_over),
        cmocka_unit_test(the_answer_of_an_older_service_lets_the_guest_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
