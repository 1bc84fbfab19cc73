// A hostile chain record: one slot. The first byte tells (1) to make its checksums and length right, so that what lies
// behind them is reached. What is understood must survive being written again.
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "diskservice/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    bool repair = data[0] & 1;
    size--;
    RP_AUTO_FREE uint8_t *slot = rp_xmalloc(size ? size : 1);
    memcpy(slot, data + 1, size);
    if (repair && size >= 16) {
        memcpy(slot, "RPCHAIN", 8);
        rp_put_le32(slot + 12, (uint32_t)size);
        if (size >= 84)
            rp_put_le32(slot + 80, rp_crc32c(0, slot + 12, 68));
        rp_put_le32(slot + 8, rp_crc32c_skip(slot, size, 8));
    }
    RP_AUTO_FREE struct rp_record *record = rp_xcalloc(1, sizeof *record);
    if (rp_record_decode(slot, size, record, NULL))
        return 0;
    RP_CLEANUP(rp_buf_clear) struct rp_buf copy = {0};
    if (rp_record_encode(record, &copy, NULL) || copy.size != size)
        abort();
    rp_record_clear(record);
    return 0;
}
