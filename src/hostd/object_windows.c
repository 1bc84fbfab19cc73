// root/cimv2: this machine as the Win32_* classes describe one. Clients ask for it before anything else: what kind of
// Windows it is (libvirt parses the version), how many processors it has (facts/wmi.md 3.1).
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <time.h>

#include "base/clock.h"
#include "hostd/core.h"

#define WINDOWS "10.0.20348" // Windows Server 2022: whose classes and methods these are
#define WINDOWS_BUILD "20348"
#define SECOND 1000000000ll

struct machine {
    struct utsname system;
    struct sysinfo info;
    unsigned processors;
    char model[128];
    unsigned mhz;
};

// "model name : …" and "cpu MHz : …" of the first processor, where the kernel tells.
static void read_processor(struct machine *machine)
{
    char line[512];
    FILE *file = fopen("/proc/cpuinfo", "re");
    while (file && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        line[strcspn(line, "\n")] = '\0';
        if (!colon)
            continue;
        if (!strncmp(line, "model name", 10) && !machine->model[0])
            snprintf(machine->model, sizeof machine->model, "%.*s", (int)sizeof machine->model - 1,
                     colon + 1 + strspn(colon + 1, " "));
        if (!strncmp(line, "cpu MHz", 7) && !machine->mhz)
            machine->mhz = (unsigned)strtoul(colon + 1, NULL, 10);
    }
    if (file)
        fclose(file);
    if (!machine->model[0])
        snprintf(machine->model, sizeof machine->model, "%s", machine->system.machine);
}

static void look(struct machine *machine)
{
    *machine = (struct machine){0};
    uname(&machine->system);
    sysinfo(&machine->info);
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    machine->processors = processors > 0 ? (unsigned)processors : 1;
    read_processor(machine);
}

static uint64_t kib(const struct machine *machine, unsigned long units)
{
    return (uint64_t)units * machine->info.mem_unit >> 10;
}

static int minutes_east(void)
{
    time_t now = time(NULL);
    struct tm local;
    return localtime_r(&now, &local) ? (int)(local.tm_gmtoff / 60) : 0;
}

static int each_system(struct rp_hostd *hostd, const struct rp_inventory *inventory, const struct rp_cim_class *class,
                       const char *only, struct rp_cim_sink sink, struct rp_error *err)
{
    (void)inventory, (void)only;
    struct rp_cim_instance *object = rp_cim_class_instance(class);
    struct machine machine;
    look(&machine);
    rp_hostd_object_text(object, class, "Name", hostd->machine);
    rp_hostd_object_text(object, class, "Caption", hostd->machine);
    rp_hostd_object_text(object, class, "Description", "AT/AT COMPATIBLE");
    rp_hostd_object_text(object, class, "DNSHostName", hostd->machine);
    rp_hostd_object_text(object, class, "Domain", "WORKGROUP");
    rp_hostd_object_text(object, class, "Workgroup", "WORKGROUP");
    rp_hostd_object_flag(object, class, "PartOfDomain", false);
    rp_hostd_object_number(object, class, "DomainRole", 2); // standalone server
    rp_hostd_object_text(object, class, "Manufacturer", "refpoint");
    rp_hostd_object_text(object, class, "Model", "refpoint-hostd " RP_VERSION);
    rp_hostd_object_text(object, class, "SystemType", "x64-based PC");
    rp_hostd_object_text(object, class, "Status", "OK");
    rp_hostd_object_text(object, class, "BootupState", "Normal boot");
    rp_hostd_object_flag(object, class, "HypervisorPresent", true);
    rp_hostd_object_number(object, class, "NumberOfProcessors", 1);
    rp_hostd_object_number(object, class, "NumberOfLogicalProcessors", machine.processors);
    rp_hostd_object_number(object, class, "TotalPhysicalMemory", kib(&machine, machine.info.totalram) << 10);
    rp_hostd_object_set(object, class, "CurrentTimeZone", rp_cim_signed(RP_CIM_SINT64, minutes_east()));
    return sink.take(sink.context, object, err);
}

static int each_operating_system(struct rp_hostd *hostd, const struct rp_inventory *inventory,
                                 const struct rp_cim_class *class, const char *only, struct rp_cim_sink sink,
                                 struct rp_error *err)
{
    (void)inventory, (void)only;
    struct rp_cim_instance *object = rp_cim_class_instance(class);
    struct machine machine;
    look(&machine);
    int64_t now = rp_clock_wall_ns();
    rp_hostd_object_text(object, class, "Name", "refpoint-hostd");
    rp_hostd_object_text(object, class, "Caption", "refpoint-hostd " RP_VERSION);
    rp_hostd_object_text(object, class, "Description", machine.system.version);
    rp_hostd_object_text(object, class, "Manufacturer", "refpoint");
    rp_hostd_object_text(object, class, "Version", WINDOWS);
    rp_hostd_object_text(object, class, "BuildNumber", WINDOWS_BUILD);
    rp_hostd_object_text(object, class, "BuildType", "Multiprocessor Free");
    rp_hostd_object_text(object, class, "CSName", hostd->machine);
    rp_hostd_object_text(object, class, "OSArchitecture", "64-bit");
    rp_hostd_object_text(object, class, "Status", "OK");
    rp_hostd_object_number(object, class, "OSType", 18);      // WINNT
    rp_hostd_object_number(object, class, "ProductType", 3);  // server
    rp_hostd_object_flag(object, class, "Primary", true);
    rp_hostd_object_number(object, class, "ServicePackMajorVersion", 0);
    rp_hostd_object_number(object, class, "ServicePackMinorVersion", 0);
    rp_hostd_object_number(object, class, "NumberOfProcesses", machine.info.procs);
    rp_hostd_object_number(object, class, "NumberOfUsers", 0);
    rp_hostd_object_number(object, class, "TotalVisibleMemorySize", kib(&machine, machine.info.totalram));
    rp_hostd_object_number(object, class, "FreePhysicalMemory", kib(&machine, machine.info.freeram));
    rp_hostd_object_number(object, class, "TotalVirtualMemorySize",
                           kib(&machine, machine.info.totalram) + kib(&machine, machine.info.totalswap));
    rp_hostd_object_number(object, class, "FreeVirtualMemory",
                           kib(&machine, machine.info.freeram) + kib(&machine, machine.info.freeswap));
    rp_hostd_object_set(object, class, "CurrentTimeZone", rp_cim_signed(RP_CIM_SINT64, minutes_east()));
    rp_hostd_object_set(object, class, "LocalDateTime", rp_cim_moment(now));
    rp_hostd_object_set(object, class, "LastBootUpTime", rp_cim_moment(now - machine.info.uptime * SECOND));
    return sink.take(sink.context, object, err);
}

static int each_product(struct rp_hostd *hostd, const struct rp_inventory *inventory, const struct rp_cim_class *class,
                        const char *only, struct rp_cim_sink sink, struct rp_error *err)
{
    (void)inventory, (void)only;
    struct rp_cim_instance *object = rp_cim_class_instance(class);
    rp_hostd_object_text(object, class, "UUID", rp_hostd_jobs_uuid(hostd));
    rp_hostd_object_text(object, class, "IdentifyingNumber", rp_hostd_jobs_uuid(hostd));
    rp_hostd_object_text(object, class, "Name", "refpoint-hostd");
    rp_hostd_object_text(object, class, "Caption", "Computer System Product");
    rp_hostd_object_text(object, class, "Description", "Computer System Product");
    rp_hostd_object_text(object, class, "Vendor", "refpoint");
    rp_hostd_object_text(object, class, "Version", RP_VERSION);
    return sink.take(sink.context, object, err);
}

static int each_processor(struct rp_hostd *hostd, const struct rp_inventory *inventory,
                          const struct rp_cim_class *class, const char *only, struct rp_cim_sink sink,
                          struct rp_error *err)
{
    (void)inventory, (void)only;
    struct rp_cim_instance *object = rp_cim_class_instance(class);
    struct machine machine;
    look(&machine);
    rp_hostd_object_text(object, class, "DeviceID", "CPU0");
    rp_hostd_object_text(object, class, "SystemName", hostd->machine);
    rp_hostd_object_text(object, class, "Name", machine.model);
    rp_hostd_object_text(object, class, "Caption", machine.model);
    rp_hostd_object_text(object, class, "Role", "CPU");
    rp_hostd_object_text(object, class, "Status", "OK");
    rp_hostd_object_number(object, class, "Architecture", 9); // x64
    rp_hostd_object_number(object, class, "AddressWidth", 64);
    rp_hostd_object_number(object, class, "DataWidth", 64);
    rp_hostd_object_number(object, class, "CpuStatus", 1);
    rp_hostd_object_number(object, class, "ProcessorType", 3);
    rp_hostd_object_number(object, class, "MaxClockSpeed", machine.mhz);
    rp_hostd_object_number(object, class, "CurrentClockSpeed", machine.mhz);
    rp_hostd_object_number(object, class, "NumberOfCores", machine.processors);
    rp_hostd_object_number(object, class, "NumberOfEnabledCore", machine.processors);
    rp_hostd_object_number(object, class, "NumberOfLogicalProcessors", machine.processors);
    rp_hostd_object_number(object, class, "ThreadCount", machine.processors);
    return sink.take(sink.context, object, err);
}

const struct rp_hostd_objects rp_hostd_windows_objects[] = {
    {"Win32_ComputerSystem", "Name", false, each_system},
    {"Win32_OperatingSystem", "Name", false, each_operating_system},
    {"Win32_ComputerSystemProduct", "UUID", false, each_product},
    {"Win32_Processor", "DeviceID", false, each_processor},
    {0},
};
