// The JSON documents of a repository. The first byte chooses one: configuration, key slot, restore point, lease.
#include <stdlib.h>
#include <string.h>

#include "repo/config.h"
#include "repo/lease.h"
#include "repo/point.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    const uint8_t *text = data + 1;
    size--;
    struct rp_config config;
    struct rp_key_slot slot;
    struct rp_point point;
    struct rp_lease_state lease;
    switch (data[0]) {
    case 'c':
        rp_config_decode(text, size, &config, NULL);
        break;
    case 'k':
        rp_key_slot_decode(text, size, &slot, NULL);
        break;
    case 'p':
        if (rp_point_decode(text, size, &point, NULL) == 0) {
            struct rp_buf again = {0};
            struct rp_point copy;
            if (rp_point_encode(&point, &again, NULL) || rp_point_decode(again.data, again.size, &copy, NULL))
                __builtin_trap(); // what was read can be written and read again
            rp_point_clear(&copy);
            rp_buf_clear(&again);
            rp_point_clear(&point);
        }
        break;
    case 'l':
        if (rp_lease_decode(text, size, "lease", &lease, NULL) == 0) {
            rp_lease_life(&lease);
            rp_lease_state_clear(&lease);
        }
        break;
    }
    return 0;
}
