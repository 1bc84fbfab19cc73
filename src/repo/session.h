// Sessions, as the disk writer sees them.
#ifndef RP_REPO_SESSION_H
#define RP_REPO_SESSION_H

#include "repo/packer.h"

struct rp_repo *rp_session_repo(struct rp_repo_session *session);
struct rp_packer *rp_session_packer(struct rp_repo_session *session);
// Was this root pinned when the session began? Only such a one may be built on: a collector must spare it.
bool rp_session_pins(const struct rp_repo_session *session, const struct rp_repo_root *root);
void rp_session_count_zeros(struct rp_repo_session *session, uint64_t blocks);

#endif
