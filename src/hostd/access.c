// Who may do what.
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "hostd/config.h"

#define MAX_GROUPS 4096
#define MAX_STEPS 8 // of a login; NTLM takes three

int rp_hostd_access_add(struct rp_hostd_access *rules, enum rp_cim_access access, const char *names,
                        struct rp_error *err)
{
    RP_AUTO_FREE char *copy = rp_xstrdup(names);
    char *rest = copy;
    for (char *name; (name = strsep(&rest, ","));) {
        name += strspn(name, " \t");
        size_t size = strlen(name);
        while (size && (name[size - 1] == ' ' || name[size - 1] == '\t'))
            name[--size] = '\0';
        bool group = *name == '@';
        if (!rp_login_is_name(name + group))
            return rp_fail(err, RP_ERR_INVALID, "users and @groups, separated by commas, are needed");
        rules->rules = rp_xrealloc(rules->rules, (rules->count + 1) * sizeof *rules->rules);
        rules->rules[rules->count++] = (struct rp_hostd_rule){access, group, rp_xstrdup(name + group)};
    }
    return 0;
}

void rp_hostd_access_clear(struct rp_hostd_access *rules)
{
    for (size_t i = 0; i < rules->count; i++)
        free(rules->rules[i].name);
    free(rules->rules);
    *rules = (struct rp_hostd_access){0};
}

void rp_hostd_access_replace(struct rp_hostd_access *rules, struct rp_hostd_access *by)
{
    struct rp_hostd_rule *old = rules->rules;
    size_t count = rules->count;
    pthread_rwlock_wrlock(&rules->lock);
    rules->rules = by->rules;
    rules->count = by->count;
    pthread_rwlock_unlock(&rules->lock);
    by->rules = old;
    by->count = count;
}

// The groups of a login; NULL when the operating system does not know it.
static gid_t *groups_of(const char *user, int *count)
{
    char buffer[16384];
    struct passwd entry, *found = NULL;
    if (getpwnam_r(user, &entry, buffer, sizeof buffer, &found) || !found)
        return NULL;
    *count = MAX_GROUPS;
    gid_t *groups = rp_xcalloc(MAX_GROUPS, sizeof *groups);
    if (getgrouplist(entry.pw_name, entry.pw_gid, groups, count) >= 0)
        return groups;
    free(groups);
    return NULL;
}

static bool is_in(const char *group, const gid_t *groups, int count)
{
    char buffer[65536];
    struct group entry, *found = NULL;
    if (getgrnam_r(group, &entry, buffer, sizeof buffer, &found) || !found)
        return false;
    for (int i = 0; i < count; i++)
        if (groups[i] == entry.gr_gid)
            return true;
    return false;
}

static bool is_user(const char *rule, const char *user)
{
    return strchr(rule, '@') || strchr(user, '@') ? !strcmp(rule, user) : !strcasecmp(rule, user);
}

// 0: none of the rules fits.
static enum rp_cim_access access_of(const struct rp_hostd_access *rules, const char *user)
{
    RP_AUTO_FREE gid_t *groups = NULL;
    int count = -1;
    enum rp_cim_access access = 0;
    for (size_t i = 0; i < rules->count; i++) {
        const struct rp_hostd_rule *rule = &rules->rules[i];
        if (rule->access <= access)
            continue;
        if (rule->group && count < 0) {
            count = 0;
            groups = groups_of(user, &count);
        }
        if (rule->group ? groups && is_in(rule->name, groups, count) : is_user(rule->name, user))
            access = rule->access;
    }
    return access;
}

int rp_hostd_access_authorize(void *context, const char *user, enum rp_cim_access *access, struct rp_error *err)
{
    struct rp_hostd_access *rules = context;
    pthread_rwlock_rdlock(&rules->lock);
    *access = access_of(rules, user);
    pthread_rwlock_unlock(&rules->lock);
    return *access ? 0 : rp_fail(err, RP_ERR_PERMISSION, "%.200s has no rights on this host", user);
}

// A login by NTLM with ourselves: the users' file may hold hashes, and gss-ntlmssp knows how to compare.
bool rp_hostd_access_password(void *context, const char *user, const char *password)
{
    const struct rp_hostd_access *rules = context;
    struct rp_login_credentials credentials = {.user = user, .password = password};
    if (!rules->acceptor || !rules->acceptor->ntlm_users)
        return false;
    struct rp_login_acceptor acceptor = {.ntlm_users = rules->acceptor->ntlm_users};
    RP_CLEANUP(rp_login_free_p)
    struct rp_login *client = rp_login_client(RP_LOGIN_NTLM, "localhost", &credentials, NULL);
    RP_CLEANUP(rp_login_free_p) struct rp_login *server = rp_login_server(RP_LOGIN_NEGOTIATE, &acceptor, NULL);
    RP_CLEANUP(rp_buf_clear) struct rp_buf theirs = {0}, ours = {0};
    for (int i = 0; client && server && i < MAX_STEPS; i++) {
        rp_buf_reset(&ours);
        if (rp_login_step(client, theirs.data, theirs.size, &ours, NULL) < 0)
            return false;
        rp_buf_reset(&theirs);
        int done = rp_login_step(server, ours.data, ours.size, &theirs, NULL);
        if (done)
            return done > 0 && rp_login_done(server);
    }
    return false;
}

int rp_hostd_access_peer(void *context, unsigned uid, unsigned gid, char user[256], enum rp_cim_access *access,
                         struct rp_error *err)
{
    (void)gid; // a process may have dropped groups that its user has; what counts is who it is
    char buffer[16384];
    struct passwd entry, *found = NULL;
    if (getpwuid_r(uid, &entry, buffer, sizeof buffer, &found) || !found)
        snprintf(user, 256, "uid %u", uid);
    else
        snprintf(user, 256, "%s", entry.pw_name);
    if (uid == 0 || uid == geteuid()) {
        *access = RP_CIM_ADMINISTER;
        return 0;
    }
    return rp_hostd_access_authorize(context, user, access, err);
}
