#include "cuts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "verify.h"

enum { DEADLINE_S = 120 };

static char *path_of(const struct setting *s, const char *name)
{
    char *path;
    if (asprintf(&path, "%s/%s", s->directory, name) < 0)
        abort();
    return path;
}

// ---- the log and the tree agree -------------------------------------------------------------------------------------

static int compare_files(const char *a, const char *b)
{
    char x[65536], y[sizeof x];
    int fa = open(a, O_RDONLY | O_CLOEXEC), fb = open(b, O_RDONLY | O_CLOEXEC), differ = fa < 0 || fb < 0;
    for (ssize_t n = 1; !differ && n > 0;) {
        n = read(fa, x, sizeof x);
        differ = read(fb, y, sizeof y) != n || (n > 0 && memcmp(x, y, (size_t)n));
    }
    if (fa >= 0)
        close(fa);
    if (fb >= 0)
        close(fb);
    return differ;
}

// service.log is written by programs whose stdio nobody can see.
static int compare_folders(const char *a, const char *b, char *wrong, size_t room, bool contents)
{
    DIR *dir = opendir(a);
    int differ = !dir;
    for (struct dirent *entry; !differ && (entry = readdir(dir));) {
        char *x, *y;
        struct stat sx, sy;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || !strcmp(entry->d_name, "service.log"))
            continue;
        if (asprintf(&x, "%s/%s", a, entry->d_name) < 0 || asprintf(&y, "%s/%s", b, entry->d_name) < 0)
            abort();
        if (lstat(x, &sx) || lstat(y, &sy) || (sx.st_mode & S_IFMT) != (sy.st_mode & S_IFMT))
            differ = 1;
        else if (S_ISDIR(sx.st_mode))
            differ = compare_folders(x, y, wrong, room, contents);
        else if (contents && S_ISREG(sx.st_mode))
            differ = compare_files(x, y);
        if (differ && !*wrong)
            snprintf(wrong, room, "the recorder missed something: %s is not %s", x, y);
        free(x);
        free(y);
    }
    if (dir)
        closedir(dir);
    return differ;
}

static int check_recording(struct cuts *c, const char *root, const char *real, char *wrong, size_t room)
{
    struct tree *tree = tree_new(c->log);
    struct cut end = {.at = log_count(c->log), .mode = CUT_ALL};
    tree_advance(tree, end.at);
    int failed = tree_build(tree, &end, root, NULL);
    if (failed)
        snprintf(wrong, room, "%s cannot be built: %s", root, strerror(errno));
    failed = failed || compare_folders(root, real, wrong, room, true) || compare_folders(real, root, wrong, room, false);
    tree_free(tree);
    return failed;
}

// ---- one cut --------------------------------------------------------------------------------------------------------

static void forget_memory(const char *root)
{
    // Shared memory does not outlive a power cut.
    char *folder;
    if (asprintf(&folder, "%s/host/vms", root) < 0)
        abort();
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        char shm[128], vm[600];
        snprintf(vm, sizeof vm, "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] != '.' && !verify_memory_of(vm, shm, sizeof shm) && !tree_empty_folder(shm))
            rmdir(shm);
    }
    if (dir)
        closedir(dir);
    free(folder);
}

struct result {
    char wrong[1500];
};

// Looking is done in a process of its own, which may crash or hang; it stays for some cuts, because memory that is new is slow.
struct looker {
    struct cuts *cuts;
    const struct oracle *oracle;
    struct times *times;
    struct result *result; // shared
    pid_t pid;             // 0: none
    int ask, answer;
    unsigned left;
};
struct question {
    struct cut cut;
    bool full;
};

static _Noreturn void looker_run(struct looker *k, int ask, int answer)
{
    const struct setting *s = k->cuts->setting;
    char *scratch = path_of(s, "scratch"), *table = path_of(s, "times");
    mallopt(M_MMAP_THRESHOLD, 256 << 20);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    mkdir(scratch, 0700);
    setenv("REFPOINT_PLUGIN", s->plugin, 1); // for a disk service that it may start
    setenv("LD_PRELOAD", s->shim, 1);
    setenv("TIMES_TABLE", table, 1);
    times_show(k->times);
    struct question q;
    while (read(ask, &q, sizeof q) == sizeof q) {
        alarm(DEADLINE_S);
        struct verify verify = {.oracle = k->oracle, .at = q.cut.at, .root = k->cuts->log->header->root, .scratch = scratch,
                                .full = q.full, .service = q.cut.seed % 3 == 0, .seed = q.cut.seed,
                                .verbose = k->cuts->only && s->verbose};
        char failed = (char)verify_run(&verify, k->result->wrong, sizeof k->result->wrong);
        if (q.full)
            tree_empty_folder(scratch);
        if (write(answer, &failed, 1) != 1)
            break;
    }
    _exit(0);
}

static void looker_end(struct looker *k)
{
    if (!k->pid)
        return;
    close(k->ask);
    close(k->answer);
    waitpid(k->pid, NULL, 0);
    k->pid = 0;
}

static int looker_start(struct looker *k)
{
    int ask[2], answer[2];
    if (pipe2(ask, O_CLOEXEC) || pipe2(answer, O_CLOEXEC))
        return -1;
    k->pid = fork();
    if (k->pid == 0) {
        close(ask[1]);
        close(answer[0]);
        looker_run(k, ask[0], answer[1]);
    }
    close(ask[0]);
    close(answer[1]);
    k->ask = ask[1];
    k->answer = answer[0];
    k->left = 50;
    return k->pid > 0 ? 0 : -1;
}

static int look(struct looker *k, const struct cut *cut, bool full)
{
    struct question q = {*cut, full};
    char failed = 1;
    k->result->wrong[0] = 0;
    if (k->pid && !k->left--)
        looker_end(k);
    if (!k->pid && looker_start(k)) {
        snprintf(k->result->wrong, sizeof k->result->wrong, "fork: %s", strerror(errno));
        return -1;
    }
    if (write(k->ask, &q, sizeof q) == sizeof q && read(k->answer, &failed, 1) == 1)
        return failed;
    int status = 0;
    waitpid(k->pid, &status, 0);
    close(k->ask);
    close(k->answer);
    k->pid = 0;
    snprintf(k->result->wrong, sizeof k->result->wrong, "looking at it ended with %s %d", WIFSIGNALED(status) ? "signal" : "status",
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return -1;
}

// ---- which cuts -----------------------------------------------------------------------------------------------------

struct planned {
    struct cut cut;
    bool full;
};

static int by_moment(const void *a, const void *b)
{
    const struct planned *x = a, *y = b;
    return x->cut.at < y->cut.at ? -1 : x->cut.at > y->cut.at;
}

// Just before the end of each sync, and just after it. Returns how many.
static size_t find_boundaries(const struct log *log, uint64_t *moments)
{
    size_t count = 0;
    for (uint64_t i = 0; i < log_count(log); i++) {
        if (log_kind(log, i) != LOG_SYNC_END)
            continue;
        if (!count || moments[count - 1] != i)
            moments[count++] = i;
        moments[count++] = i + 1;
    }
    return count;
}

static struct planned *plan(struct cuts *c, size_t *count)
{
    uint64_t random = c->seed, entries = log_count(c->log);
    uint64_t *moments = calloc(2 * entries + 1, sizeof *moments);
    size_t found = find_boundaries(c->log, moments), boundaries = c->boundaries < found ? c->boundaries : found;
    struct planned *list = calloc(2 * boundaries + c->samples + 1, sizeof *list);
    *count = 0;
    for (unsigned i = 0; i < c->samples; i++) {
        uint64_t at = found && draw(&random) % 2 ? moments[draw(&random) % found] : draw(&random) % (entries + 1);
        list[(*count)++].cut = (struct cut){at, draw(&random) % 3 ? CUT_LOOSE : CUT_ORDERED, draw(&random)};
    }
    for (size_t i = 0; i < boundaries; i++) { // no moment twice
        size_t chosen = i + draw(&random) % (found - i);
        uint64_t at = moments[chosen];
        moments[chosen] = moments[i];
        list[(*count)++].cut = (struct cut){at, CUT_SYNCED, draw(&random)};
        list[(*count)++].cut = (struct cut){at, CUT_ALL, draw(&random)};
    }
    free(moments);
    for (size_t i = 0; i < *count; i++)
        list[i].full = c->full_every && draw(&random) % c->full_every == 0;
    qsort(list, *count, sizeof *list, by_moment);
    return list;
}

const char *cuts_run(struct cuts *c, struct counts *counts)
{
    static char wrong[2048];
    const char *root = c->log->header->root;
    char *real = path_of(c->setting, "real"), *table = path_of(c->setting, "times");
    struct oracle *oracle = oracle_new(c->log);
    struct times *times = times_open(table);
    struct result *result = mmap(NULL, sizeof *result, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct looker looker = {.cuts = c, .oracle = oracle, .times = times, .result = result};
    wrong[0] = 0;
    if (!c->only && (rename(root, real) || mkdir(root, 0700)))
        snprintf(wrong, sizeof wrong, "%s: %s", root, strerror(errno));
    if (!*wrong && !c->only)
        check_recording(c, root, real, wrong, sizeof wrong);
    size_t count = 1;
    struct planned single = {c->only ? *c->only : (struct cut){0}, c->only_full}, *list = c->only ? &single : plan(c, &count);
    struct tree *tree = tree_new(c->log);
    tree_forget_syncs(tree, c->forget, c->forget_suffix);
    if (c->keep_times)
        tree_keep_times(tree);
    for (size_t i = 0; i < count && !*wrong; i++) {
        const struct cut *cut = &list[i].cut;
        tree_advance(tree, cut->at);
        if (tree_build(tree, cut, root, times)) {
            snprintf(wrong, sizeof wrong, "%s cannot be built: %s", root, strerror(errno));
            break;
        }
        if (look(&looker, cut, list[i].full)) {
            c->failures++;
            if (!c->keep_going)
                snprintf(wrong, sizeof wrong, "cut at %llu of %llu (%s, seed %llu%s): %s", (unsigned long long)cut->at,
                         (unsigned long long)log_count(c->log), cut_mode_name(cut->mode), (unsigned long long)cut->seed,
                         list[i].full ? ", full" : "", result->wrong);
            else if (c->setting->verbose)
                fprintf(stderr, "  cut at %llu (%s, seed %llu%s): %s\n", (unsigned long long)cut->at, cut_mode_name(cut->mode),
                        (unsigned long long)cut->seed, list[i].full ? ", full" : "", result->wrong);
        }
        forget_memory(root);
        counts->cuts++;
        counts->full_cuts += list[i].full;
    }
    looker_end(&looker);
    tree_free(tree);
    if (!c->only)
        free(list);
    munmap(result, sizeof *result);
    times_close(times);
    oracle_free(oracle);
    free(real);
    free(table);
    return *wrong ? wrong : NULL;
}
