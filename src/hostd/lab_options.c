// The command line of the lab.
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "hostd/lab_options.h"

const char rp_lab_help[] =
    "usage: refpoint-hostd --lab [OPTIONS] [DIR]\n"
    "A host with virtual machines whose disks change by themselves, for tests and developers: no root, no libvirt, no\n"
    "guest. Prints one line of JSON when it is ready; ends at SIGTERM and SIGINT. Without DIR it lives in a temporary\n"
    "folder, which is removed at the end. docs/lab.md says more.\n\n"
    "  --vms N            virtual machines: vm1, vm2, … (3)\n"
    "  --disks N          disks of each (2)\n"
    "  --size SIZE        size of a disk (64M)\n"
    "  --written SIZE     how much of it has been written before (1M, a sixteenth of the disk at most)\n"
    "  --running N        how many of them run (all)\n"
    "  --rate SIZE        what a guest writes to each disk in a second; 0: only when told to (128K)\n"
    "  --seed N           of what guests write (1)\n"
    "  --script FILE      what goes wrong, and when\n"
    "  --machine NAME     what the host calls itself (LABHOST)\n"
    "  --http PORT, --https PORT   instead of free ports\n"
    "  --basic-in-clear   one more listener, that takes Basic and messages in clear\n"
    "  --keytab FILE      Kerberos as well; the principals that may log in:\n"
    "  --administrator PRINCIPAL   (repeatable)\n"
    "  --job-seconds N    how long jobs are remembered after their end (300)\n"
    "  --until-eof        ends also when its standard input does\n"
    "  --verbose          tells what guests and faults do\n";

static const struct option options[] = {
    {"lab", no_argument, NULL, 'l'}, {"vms", required_argument, NULL, 'n'}, {"disks", required_argument, NULL, 'd'},
    {"size", required_argument, NULL, 's'}, {"written", required_argument, NULL, 'w'},
    {"running", required_argument, NULL, 'u'}, {"rate", required_argument, NULL, 'r'},
    {"seed", required_argument, NULL, 'e'}, {"script", required_argument, NULL, 'f'},
    {"machine", required_argument, NULL, 'm'}, {"http", required_argument, NULL, 'p'},
    {"https", required_argument, NULL, 't'}, {"basic-in-clear", no_argument, NULL, 'b'},
    {"keytab", required_argument, NULL, 'k'}, {"administrator", required_argument, NULL, 'a'},
    {"job-seconds", required_argument, NULL, 'j'}, {"until-eof", no_argument, NULL, 'o'},
    {"verbose", no_argument, NULL, 'v'}, {"help", no_argument, NULL, 'h'}, {0}};

static int read_number(const char *name, uint64_t least, uint64_t most, uint64_t *value, struct rp_error *err)
{
    char *end = optarg;
    *value = *optarg >= '0' && *optarg <= '9' ? strtoull(optarg, &end, 10) : most + 1;
    if (*value < least || *value > most || *end)
        return rp_fail(err, RP_ERR_USAGE, "--%s: \"%s\" is no number from %llu to %llu", name, optarg,
                       (unsigned long long)least, (unsigned long long)most);
    return 0;
}

static int read_size(const char *name, uint64_t most, uint64_t *value, struct rp_error *err)
{
    if (rp_parse_size(optarg, value, NULL) || *value > most)
        return rp_fail(err, RP_ERR_USAGE, "--%s: \"%s\" is no size of at most %llu bytes", name, optarg,
                       (unsigned long long)most);
    return 0;
}

static int read_option(struct rp_lab_options *lab, int letter, const char *name, struct rp_error *err)
{
    switch (letter) {
    case 'n':
        return read_number(name, 1, 10000, &lab->vms, err);
    case 'd':
        return read_number(name, 1, 64, &lab->disks, err);
    case 's':
        return read_size(name, RP_TIB, &lab->size, err);
    case 'w':
        return read_size(name, RP_TIB, &lab->written, err);
    case 'u':
        return read_number(name, 0, 10000, &lab->running, err);
    case 'r':
        return read_size(name, RP_GIB, &lab->rate, err);
    case 'e':
        return read_number(name, 0, INT64_MAX, &lab->seed, err);
    case 'p':
        return read_number(name, 1, 65535, &lab->http, err);
    case 't':
        return read_number(name, 1, 65535, &lab->https, err);
    case 'j':
        return read_number(name, 1, 86400, &lab->job_seconds, err);
    case 'f':
        lab->script = optarg;
        return 0;
    case 'm':
        lab->machine = optarg;
        return *optarg && strlen(optarg) < 64 ? 0 : rp_fail(err, RP_ERR_USAGE, "--machine: 1 to 63 characters");
    case 'k':
        lab->keytab = optarg;
        return 0;
    case 'a':
        if (lab->administrator_count == RP_LAB_ADMINISTRATORS)
            return rp_fail(err, RP_ERR_USAGE, "--administrator: at most %d", RP_LAB_ADMINISTRATORS);
        lab->administrators[lab->administrator_count++] = optarg;
        return 0;
    default:
        lab->basic_in_clear |= letter == 'b';
        lab->until_eof |= letter == 'o';
        lab->verbose |= letter == 'v';
        lab->help |= letter == 'h';
        return 0;
    }
}

static int check(struct rp_lab_options *lab, struct rp_error *err)
{
    if (lab->size < RP_MIB || lab->size % 4096)
        return rp_fail(err, RP_ERR_USAGE, "--size: at least 1M, in steps of 4K");
    if (lab->written > lab->size / 16)
        lab->written = lab->size / 16;
    if (lab->administrator_count && !lab->keytab)
        return rp_fail(err, RP_ERR_USAGE, "--administrator names a principal of Kerberos, which needs --keytab");
    return 0;
}

int rp_lab_options_read(int argc, char **argv, struct rp_lab_options *lab, struct rp_error *err)
{
    *lab = (struct rp_lab_options){.vms = 3, .disks = 2, .size = 64 * RP_MIB, .written = RP_MIB, .running = UINT64_MAX,
                                   .rate = 128 * RP_KIB, .seed = 1, .machine = "LABHOST"};
    int letter, index = 0;
    optind = 1;
    opterr = 0;
    while ((letter = getopt_long(argc, argv, ":", options, &index)) != -1) {
        if (letter == '?' || letter == ':')
            return rp_fail(err, RP_ERR_USAGE, letter == ':' ? "%s needs a value" : "unknown option %s (see --help)",
                           argv[optind - 1]);
        if (read_option(lab, letter, options[index].name, err))
            return -1;
    }
    if (argc - optind > 1)
        return rp_fail(err, RP_ERR_USAGE, "one folder is enough: \"%s\" is too much", argv[optind + 1]);
    lab->directory = optind < argc ? argv[optind] : NULL;
    return check(lab, err);
}
