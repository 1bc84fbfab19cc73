// Hostile names of files, as a host gives them: whatever is understood lies in the mapped folder. And lines of a hosts
// file: what is taken is found again.
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "hyperv/path_map.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_inside(const char *local, const char *root)
{
    size_t length = strlen(root);
    if (strncmp(local, root, length) || (local[length] && local[length] != '/') || strstr(local, "/../"))
        abort();
    if (strlen(local) >= 3 && !strcmp(local + strlen(local) - 3, "/.."))
        abort();
}

static void check_line(const char *line)
{
    RP_CLEANUP(rp_path_map_clear) struct rp_path_map map = {0};
    if (rp_path_map_add_line(&map, line, NULL))
        return;
    RP_AUTO_FREE char *file = rp_path_map_join(map.items[0].host, "x");
    if (map.items[0].local[0] != '/' || !rp_path_map_knows(&map, map.items[0].host) || !rp_path_map_knows(&map, file) ||
        strcmp(rp_path_map_name(file), "x") || !rp_path_map_add_line(&map, line, NULL))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rp_path_map map;
    static char *root;
    if (!map.count && (!(root = realpath("/usr/include", NULL)) || rp_path_map_add(&map, "D:\\VMs", root, NULL) ||
                       rp_path_map_add(&map, "\\\\hv1\\VMs", root, NULL) ||
                       rp_path_map_add(&map, "/srv/vms", root, NULL)))
        abort();
    RP_CLEANUP(rp_buf_clear) struct rp_buf input = {0};
    rp_buf_append(&input, data, size);
    const char *text = rp_buf_text(&input);
    RP_AUTO_FREE char *local = rp_path_map_to_local(&map, text, NULL);
    if (local)
        check_inside(local, root);
    if (local && !rp_path_map_knows(&map, text))
        abort();
    check_line(text);
    return 0;
}
