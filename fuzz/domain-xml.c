// Hostile definitions of domains. What can be read has settings that can be kept, or none that a VM has. And it can be changed:
// every disk goes to a disk service and comes back, and the text is what it was; the XML of what is written can be read again.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "host/domain_settings.h"
#include "host/domain_state.h"
#include "host/domain_xml.h"

enum { MOST = 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void exchange(const struct rp_domain_xml *xml, const struct rp_domain_disk *disks, size_t count, bool iothread)
{
    RP_AUTO_FREE char *attached = NULL, *detached = NULL;
    RP_CLEANUP(rp_domain_xml_clear) struct rp_domain_xml now = {0}, then = {0};
    struct rp_domain_xml_image images[MOST];
    bool exact = true;
    if (rp_domain_xml_attach(xml, disks, count, &iothread, &attached, NULL) || rp_domain_xml_parse(attached, &now, NULL) ||
        now.disk_count != xml->disk_count)
        abort();
    for (size_t i = 0; i < count; i++) {
        const struct rp_domain_xml_disk *was = rp_domain_xml_disk(xml, disks[i].target), *is = rp_domain_xml_disk(&now, disks[i].target);
        if (!is || !rp_domain_xml_is_attached(is, &disks[i]))
            abort();
        images[i] = (struct rp_domain_xml_image){.attached = disks[i], .path = was->path, .format = *was->format ? was->format : "raw"};
        exact &= !was->backing_count && was->end - was->start < 8192;
    }
    if (rp_domain_xml_detach(&now, xml, images, count, iothread, &detached, NULL))
        abort();
    if (exact && strcmp(detached, xml->text))
        abort();
    RP_AUTO_FREE char *without = NULL;
    if (rp_domain_xml_detach(&now, NULL, images, count, iothread, &without, NULL) || rp_domain_xml_parse(without, &then, NULL))
        abort();
}

static void settle(const struct rp_domain_xml *xml, const struct rp_domain_disk *disks, size_t count)
{
    RP_CLEANUP(rp_domain_state_places_clear) struct rp_domain_state_places places = {0};
    struct rp_domain_target targets[MOST];
    struct rp_domain_settings settings, again;
    for (size_t i = 0; i < count; i++) {
        targets[i].number = (uint32_t)i;
        memcpy(targets[i].target, disks[i].target, sizeof targets[i].target);
    }
    rp_domain_state_places("qemu:///system", xml, &places);
    if (rp_domain_settings_of_xml(xml, targets, count, &settings, NULL, NULL))
        return;
    RP_AUTO_FREE char *extras = rp_domain_settings_to_extras(&settings, "", NULL);
    if (!extras || rp_domain_settings_of_extras(extras, &again, NULL, NULL))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    RP_CLEANUP(rp_domain_xml_clear) struct rp_domain_xml xml = {0};
    RP_AUTO_FREE char *text = size < 64 << 10 ? strndup((const char *)data, size) : NULL;
    struct rp_domain_disk disks[MOST];
    size_t count = 0;
    if (!text || rp_domain_xml_parse(text, &xml, NULL))
        return 0;
    for (size_t i = 0; i < xml.disk_count && count < MOST; i++) {
        const struct rp_domain_xml_disk *disk = &xml.disks[i];
        if (!*disk->target || strlen(disk->target) >= sizeof disks->target)
            continue;
        disks[count] = (struct rp_domain_disk){.socket = "/run/a & b/nbd.sock"};
        strcpy(disks[count].target, disk->target);
        snprintf(disks[count].export_name, sizeof disks->export_name, "disk%zu", count);
        count++;
    }
    settle(&xml, disks, count);
    exchange(&xml, disks, count, false);
    exchange(&xml, disks, count, true);
    return 0;
}
