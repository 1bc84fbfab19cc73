// The hosts that the tool knows by name: a text file, $REFPOINT_HOSTS or ~/.config/refpoint/hosts.
//
//     # the two in the cellar
//     [hv1]
//     url = https://hv1.example.org
//     auth = negotiate            (or kerberos, ntlm, basic, peer; when absent: negotiate, of a unix socket peer)
//     user = LAB\backup
//     fingerprint = 3f:…          (of the certificate, SHA-256; it alone is believed then)
//     ca = /etc/refpoint/ca.pem
//     basic-in-clear = yes
//     export = D:\Export          (folder for exports, as the host calls it)
//     map = D:\VMs = /mnt/hv1-d   (any number of them: hyperv/path_map.h)
//
// Passwords stand elsewhere (hyperv/keyring.h). Hostile content is one clear line with its place.
#ifndef RP_HYPERV_HOSTS_FILE_H
#define RP_HYPERV_HOSTS_FILE_H

#include "hyperv/path_map.h"
#include "wsman/transport.h"

struct rp_hosts_entry {
    char *name, *url;
    enum rp_wsman_auth auth;
    char *user, *fingerprint, *ca_file, *export_folder; // NULL: none
    bool basic_in_clear;
    struct rp_path_map paths;
};
struct rp_hosts {
    struct rp_hosts_entry *items;
    size_t count;
};
void rp_hosts_entry_clear(struct rp_hosts_entry *entry);
void rp_hosts_clear(struct rp_hosts *hosts); // usable with RP_CLEANUP

char *rp_hosts_file_path(void); // malloc'ed
// 1 to 64 letters, digits, '.', '-' and '_', a letter or digit first; not "local".
bool rp_hosts_is_name(const char *text);
const char *rp_hosts_auth_name(enum rp_wsman_auth auth); // "negotiate", …
int rp_hosts_auth_parse(const char *text, enum rp_wsman_auth *auth, struct rp_error *err); // RP_ERR_INVALID

// A file that is not there has no hosts.
int rp_hosts_file_read(const char *path, struct rp_hosts *hosts, struct rp_error *err);
struct rp_hosts_entry *rp_hosts_find(const struct rp_hosts *hosts, const char *name); // in any case; NULL
// Adds a host (RP_ERR_EXISTS) or removes one (RP_ERR_NOT_FOUND), at once and alone. What people wrote into the file
// beside it (comments, other hosts) stays as it was.
int rp_hosts_file_add(const char *path, const struct rp_hosts_entry *entry, struct rp_error *err);
int rp_hosts_file_remove(const char *path, const char *name, struct rp_error *err);

#endif
