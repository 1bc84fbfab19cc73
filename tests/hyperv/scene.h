// What the tests of the WMI connection share: a host (fake.h), the connection to it, and what is expected of a call.
#ifndef TEST_HYPERV_SCENE_H
#define TEST_HYPERV_SCENE_H

#include "fake.h"

#define SNAP "A1B2C3D4-0000-4000-8000-0000000000C1"
#define OTHER_SNAP "A1B2C3D4-0000-4000-8000-0000000000C2"
#define POINT "Microsoft:A1B2C3D4-0000-4000-8000-0000000000D1"
#define TAG "refpoint:11111111-1111-4111-8111-111111111111:22222222-2222-4222-8222-222222222222"
#define OTHER_TAG "refpoint:33333333-3333-4333-8333-333333333333:22222222-2222-4222-8222-222222222222"
#define DISK "Microsoft:" FAKE_A "\\C0\\0\\0\\L"

extern struct fake *fake;
extern struct rp_host_connection *host;
extern struct rp_error err;

int scene_setup(void **state);
int scene_teardown(void **state);
#define SCENE(f) cmocka_unit_test_setup_teardown(f, scene_setup, scene_teardown)

void good(int result);
void bad(int result, enum rp_code code, const char *why); // in one line
void answers(const struct fake_answer *list);             // and an empty log
void disk_facts(struct fake *f, const struct rp_cim_path *path, const struct rp_cim_instance *in,
                struct rp_cim_instance *out, uint32_t *status); // answers GetVirtualHardDiskSettingData: 1 GiB

#endif
