// soak-round: one round of the soak test. See run, which makes many of them.
//   soak-round BUILD DIRECTORY [OPTION…]
//     --seed N  --steps N  --verbose
//     --kills                                       processes are killed all the time, and calls fail now and then
//     --faults                                      calls fail all the time
//     --every JOB:WHERE --stride N --first N --count N   instead: a job killed at every Nth call until it gets to its end;
//                                                   JOB: backup checkpoint delete grow stop start create add remove; WHERE: command,
//                                                   service, off (the command, with the VM stopped), packs (the command: its calls
//                                                   from the first pack on that it gives its name)
//     --boundaries N|all --samples N --full-every N which cuts
//     --pace N                                      microseconds between two requests of a client, on average
//     --cut AT:MODE:SEED[:full]                     no new life: this cut of the log in DIRECTORY
//     --forget-sync N | --forget-syncs-of SUFFIX    as if these syncs had not been (it must be noticed)
//     --keep-going                                  count what is wrong
// The last line is what was done, as JSON. Exit status: 0 good, 1 something is wrong, 2 it could not be done.
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/error.h"
#include "cuts.h"
#include "repo/repo.h"
#include "verify.h"

// Under the recorder, and with a key that is cheap to derive.
static int init_repository(const char *path)
{
    struct rp_error err = {0};
    struct rp_repo_options options = {.passphrase = PASSPHRASE, .scrypt_log_n = 10};
    struct rp_backend *backend = rp_backend_directory_open(path, true, &err);
    if (!backend || rp_repo_init(backend, &options, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 2;
    }
    rp_backend_close(backend);
    return 0;
}

// A life that goes on, under the recorder: everything must be there now.
static int verify_now(const char *directory)
{
    char wrong[1500] = "";
    struct log log;
    char *path, *scratch;
    if (asprintf(&path, "%s/log", directory) < 0 || asprintf(&scratch, "%s/scratch", directory) < 0)
        abort();
    if (log_open(&log, path, false)) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return 2;
    }
    mkdir(scratch, 0700);
    struct oracle *oracle = oracle_new(&log);
    struct verify verify = {.oracle = oracle, .at = log_count(&log), .root = log.header->root, .scratch = scratch, .clean = true,
                            .seed = log_count(&log)};
    int failed = verify_run(&verify, wrong, sizeof wrong);
    oracle_free(oracle);
    log_close(&log);
    printf("%s\n", wrong);
    return failed;
}

static char *in(const char *folder, const char *name)
{
    char *path;
    if (asprintf(&path, "%s/%s", folder, name) < 0)
        abort();
    return path;
}

static double now(void)
{
    struct timeval t;
    gettimeofday(&t, NULL);
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static int parse_cut(char *text, struct cut *cut, bool *full)
{
    char *save, *at = strtok_r(text, ":", &save), *mode = strtok_r(NULL, ":", &save), *seed = strtok_r(NULL, ":", &save);
    if (!seed)
        return -1;
    cut->at = strtoull(at, NULL, 10);
    cut->seed = strtoull(seed, NULL, 10);
    *full = strtok_r(NULL, ":", &save) != NULL;
    for (cut->mode = CUT_SYNCED; cut->mode <= CUT_LOOSE; cut->mode++)
        if (!strcmp(mode, cut_mode_name(cut->mode)))
            return 0;
    return -1;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "init-repository"))
        return init_repository(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "verify"))
        return verify_now(argv[2]);
    if (argc < 3) {
        fprintf(stderr, "usage: soak-round BUILD DIRECTORY [--seed N] [--steps N] [--kills] …\n");
        return 2;
    }
    char self[PATH_MAX] = "", *build = realpath(argv[1], NULL), *directory;
    mkdir(argv[2], 0700);
    directory = realpath(argv[2], NULL);
    if (!build || !directory || readlink("/proc/self/exe", self, sizeof self - 1) < 0) {
        fprintf(stderr, "soak-round: %s, %s: %s\n", argv[1], argv[2], strerror(errno));
        return 2;
    }
    struct setting setting = {.refpoint = in(build, "src/cli/refpoint"), .plugin = in(build, "src/diskservice/nbdkit-refpoint-plugin.so"),
                              .recorder = in(build, "tests/record/librecord.so"), .shim = in(build, "tests/record/libtimes.so"),
                              .self = self, .directory = directory, .seed = 1, .steps = 10};
    struct cuts cuts = {.setting = &setting, .boundaries = 40, .samples = 120, .full_every = 20, .forget = UINT64_MAX};
    struct cut only;
    for (int i = 3; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        bool takes = true;
        if (!strcmp(argv[i], "--seed"))
            setting.seed = strtoull(value, NULL, 10);
        else if (!strcmp(argv[i], "--steps"))
            setting.steps = (unsigned)atoi(value);
        else if (!strcmp(argv[i], "--every"))
            setting.every = value;
        else if (!strcmp(argv[i], "--stride"))
            setting.stride = (unsigned)atoi(value);
        else if (!strcmp(argv[i], "--first"))
            setting.first = (unsigned)atoi(value);
        else if (!strcmp(argv[i], "--count"))
            setting.count = (unsigned)atoi(value);
        else if (!strcmp(argv[i], "--pace"))
            setting.pace = (unsigned)atoi(value);
        else if (!strcmp(argv[i], "--boundaries"))
            cuts.boundaries = strcmp(value, "all") ? (unsigned)atoi(value) : ALL_BOUNDARIES;
        else if (!strcmp(argv[i], "--samples"))
            cuts.samples = (unsigned)atoi(value);
        else if (!strcmp(argv[i], "--full-every"))
            cuts.full_every = (unsigned)atoi(value);
        else if (!strcmp(argv[i], "--forget-sync"))
            cuts.forget = strtoull(value, NULL, 10);
        else if (!strcmp(argv[i], "--forget-syncs-of"))
            cuts.forget_suffix = value;
        else if (!strcmp(argv[i], "--cut") && !parse_cut(argv[i + 1], &only, &cuts.only_full))
            cuts.only = &only;
        else {
            takes = false;
            if (!strcmp(argv[i], "--kills"))
                setting.kills = true;
            else if (!strcmp(argv[i], "--faults"))
                setting.kills = setting.faults = true;
            else if (!strcmp(argv[i], "--verbose"))
                setting.verbose = true;
            else if (!strcmp(argv[i], "--keep-going"))
                cuts.keep_going = true;
            else if (!strcmp(argv[i], "--keep-times"))
                cuts.keep_times = true;
            else {
                fprintf(stderr, "soak-round: %s?\n", argv[i]);
                return 2;
            }
        }
        i += takes;
    }
    if (!setting.pace)
        setting.pace = setting.every ? 8000 : setting.kills ? 400 : 0;
    struct counts counts = {0};
    struct log log;
    signal(SIGPIPE, SIG_IGN);
    cuts.seed = setting.seed ^ 0x5eed;
    cuts.log = &log;
    const char *wrong = NULL;
    double start = now(), recorded;
    if (cuts.only) {
        if (log_open(&log, in(directory, "log"), false)) {
            fprintf(stderr, "soak-round: %s/log: %s\n", directory, strerror(errno));
            return 2;
        }
        mkdir(log.header->root, 0700);
    } else {
        wrong = scenario_run(&setting, &log, &counts);
    }
    recorded = now();
    if (!wrong && (cuts.only || cuts.boundaries || cuts.samples))
        wrong = cuts_run(&cuts, &counts);
    if (wrong)
        printf("%s\n", wrong);
    for (uint64_t i = 0; i < log_count(&log); i++)
        counts.syncs += log_kind(&log, i) == LOG_SYNC_END;
    printf("{\"seed\":%llu,\"good\":%s,\"failures\":%u,\"requests\":%llu,\"bytes\":%llu,\"flushes\":%llu,\"reads\":%llu,\"backups\":%llu,"
           "\"checkpoints\":%llu,\"merges\":%llu,\"restores\":%llu,\"grows\":%llu,\"restarts\":%llu,\"kills\":%llu,"
           "\"kills_at_call\":%llu,\"faults\":%llu,\"cuts\":%llu,\"full_cuts\":%llu,\"entries\":%llu,\"syncs\":%llu,\"live_seconds\":%.2f,\"cut_seconds\":%.2f}\n",
           (unsigned long long)setting.seed, wrong ? "false" : "true", cuts.failures, (unsigned long long)counts.requests,
           (unsigned long long)counts.bytes, (unsigned long long)counts.flushes, (unsigned long long)counts.reads,
           (unsigned long long)counts.backups, (unsigned long long)counts.checkpoints, (unsigned long long)counts.merges,
           (unsigned long long)counts.restores, (unsigned long long)counts.grows, (unsigned long long)counts.restarts,
           (unsigned long long)counts.kills, (unsigned long long)counts.kills_at_call, (unsigned long long)counts.faults,
           (unsigned long long)counts.cuts, (unsigned long long)counts.full_cuts, (unsigned long long)log_count(&log),
           (unsigned long long)counts.syncs, recorded - start, now() - recorded);
    return wrong || cuts.failures ? 1 : 0;
}
