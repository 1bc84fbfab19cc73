#include "scene.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct fake *fake;
struct rp_host_connection *host;
struct rp_error err;

int scene_setup(void **state)
{
    (void)state;
    fake = fake_start();
    host = fake_connect(fake);
    rp_error_clear(&err);
    return host ? 0 : -1;
}

int scene_teardown(void **state)
{
    (void)state;
    rp_host_close(host);
    fake_stop(fake);
    return 0;
}

void good(int result)
{
    if (result)
        fail_msg("%s", err.text);
}

void bad(int result, enum rp_code code, const char *why)
{
    assert_int_equal(result, -1);
    if (err.code != code || !strstr(err.text, why))
        fail_msg("'%s' (%s) is not: %s (%s)", why, rp_code_name(code), err.text, rp_code_name(err.code));
    assert_null(strchr(err.text, '\n'));
    rp_error_clear(&err);
}

void answers(const struct fake_answer *list)
{
    fake->answers = list;
    *fake->log = 0;
}

void disk_facts(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                struct rp_cim_instance *out, uint32_t *status)
{
    (void)f, (void)path, (void)in;
    rp_cim_set(out, "SettingData",
               rp_cim_string(
                   "<?xml version=\"1.0\"?><CIM><DECLARATION><INSTANCE CLASSNAME=\"Msvm_VirtualHardDiskSettingData\">"
                   "<PROPERTY NAME=\"MaxInternalSize\" TYPE=\"uint64\"><VALUE>1073741824</VALUE></PROPERTY>"
                   "<PROPERTY NAME=\"LogicalSectorSize\" TYPE=\"uint32\"><VALUE>512</VALUE></PROPERTY>"
                   "<PROPERTY NAME=\"VirtualDiskId\" "
                   "TYPE=\"string\"><VALUE>{5BFDE23B-CE75-4303-B54F-6C18394F105C}</VALUE></PROPERTY>"
                   "</INSTANCE></DECLARATION></CIM>"));
    *status = 0;
}
