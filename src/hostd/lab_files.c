// The files of a lab: certificates, the users of NTLM, fresh disks.
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/utf16.h"
#include "disk/vhdx.h"
#include "hostd/lab.h"

enum { DAYS = 3650 };

static int write_private(const char *directory, const char *name, const void *data, size_t size, struct rp_error *err)
{
    RP_AUTO_FREE char *path = rp_path_join(directory, name);
    if (unlink(path) && errno != ENOENT)
        return rp_fail_sys(err, errno, "%s: replace", path);
    RP_AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        return rp_fail_sys(err, errno, "%s: write", path);
    return 0;
}

// ---- certificates --------------------------------------------------------------------------------------------------

RP_DEFINE_CLEANUP(EVP_PKEY, EVP_PKEY_free)
RP_DEFINE_CLEANUP(X509, X509_free)
RP_DEFINE_CLEANUP(BIO, BIO_free_all)

static bool extend(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    bool good = extension && X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
    return good;
}

// `issuer` NULL: a CA, signed by itself. `names`: subjectAltName.
static X509 *certify(EVP_PKEY *key, const char *name, X509 *issuer, EVP_PKEY *issuer_key, const char *names)
{
    RP_CLEANUP(X509_free_p) X509 *made = X509_new();
    uint64_t serial;
    bool good = made && RAND_bytes((unsigned char *)&serial, sizeof serial) > 0 && X509_set_version(made, 2) &&
                ASN1_INTEGER_set_uint64(X509_get_serialNumber(made), serial >> 1) &&
                X509_gmtime_adj(X509_getm_notBefore(made), -86400) &&
                X509_time_adj_ex(X509_getm_notAfter(made), DAYS, 0, NULL) &&
                X509_NAME_add_entry_by_txt(X509_get_subject_name(made), "CN", MBSTRING_UTF8,
                                           (const unsigned char *)name, -1, -1, 0) &&
                X509_set_issuer_name(made, X509_get_subject_name(issuer ? issuer : made)) &&
                X509_set_pubkey(made, key) &&
                extend(made, issuer ? issuer : made, NID_subject_key_identifier, "hash") &&
                extend(made, issuer ? issuer : made, NID_authority_key_identifier, "keyid");
    if (issuer)
        good = good && extend(made, issuer, NID_basic_constraints, "critical,CA:FALSE") &&
               extend(made, issuer, NID_key_usage, "critical,digitalSignature") &&
               extend(made, issuer, NID_ext_key_usage, "serverAuth") &&
               extend(made, issuer, NID_subject_alt_name, names);
    else
        good = good && extend(made, made, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
               extend(made, made, NID_key_usage, "critical,keyCertSign,cRLSign");
    if (!good || !X509_sign(made, issuer ? issuer_key : key, EVP_sha256()))
        return NULL;
    X509 *result = made;
    made = NULL;
    return result;
}

static int write_pem(const char *directory, const char *name, X509 *certificate, EVP_PKEY *key, struct rp_error *err)
{
    RP_CLEANUP(BIO_free_all_p) BIO *memory = BIO_new(BIO_s_mem());
    char *text;
    if (!memory || (certificate && !PEM_write_bio_X509(memory, certificate)) ||
        (key && !PEM_write_bio_PrivateKey(memory, key, NULL, NULL, 0, NULL, NULL)))
        return rp_fail(err, RP_ERR_IO, "%s/%s: cannot be made", directory, name);
    long size = BIO_get_mem_data(memory, &text);
    return write_private(directory, name, text, (size_t)size, err);
}

static int print(X509 *certificate, char fingerprint[96], struct rp_error *err)
{
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    if (!X509_digest(certificate, EVP_sha256(), hash, &size) || size != 32)
        return rp_fail(err, RP_ERR_IO, "the certificate has no fingerprint");
    for (unsigned i = 0; i < size; i++)
        snprintf(fingerprint + 3 * i, 4, i + 1 < size ? "%02X:" : "%02X", hash[i]);
    return 0;
}

static X509 *read_certificate(const char *path)
{
    FILE *file = fopen(path, "re");
    X509 *certificate = file ? PEM_read_X509(file, NULL, NULL, NULL) : NULL;
    if (file)
        fclose(file);
    return certificate;
}

int rp_lab_files_certificate(const char *directory, const char *name, char fingerprint[96], struct rp_error *err)
{
    RP_AUTO_FREE char *path = rp_path_join(directory, "certificate.pem");
    RP_AUTO_FREE char *key_path = rp_path_join(directory, "key.pem"), *ca_path = rp_path_join(directory, "ca.pem");
    RP_AUTO_FREE char *names = rp_xasprintf("DNS:localhost,DNS:%s,IP:127.0.0.1,IP:::1", name);
    RP_CLEANUP(X509_free_p) X509 *old = read_certificate(path);
    if (old && !access(key_path, R_OK) && !access(ca_path, R_OK))
        return print(old, fingerprint, err);
    RP_CLEANUP(EVP_PKEY_free_p) EVP_PKEY *ca_key = EVP_EC_gen("P-256"), *key = EVP_EC_gen("P-256");
    RP_CLEANUP(X509_free_p) X509 *ca = ca_key ? certify(ca_key, "refpoint lab CA", NULL, NULL, NULL) : NULL;
    RP_CLEANUP(X509_free_p) X509 *certificate = ca && key ? certify(key, name, ca, ca_key, names) : NULL;
    if (!certificate)
        return rp_fail(err, RP_ERR_IO, "%s: no certificate could be made for \"%s\"", directory, names);
    return write_pem(directory, "ca.pem", ca, NULL, err) || write_pem(directory, "key.pem", NULL, key, err) ||
           write_pem(directory, "certificate.pem", certificate, NULL, err) ||
           print(certificate, fingerprint, err) ? -1 : 0;
}

// ---- users ---------------------------------------------------------------------------------------------------------

// MD4 of the password in UTF-16 (MS-NLMP 3.3.1). OpenSSL 3 has MD4 in its legacy provider, which is loaded into a
// context of its own.
static int nt_hash(const char *password, unsigned char hash[16], struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf utf16 = {0};
    if (rp_utf16_append(&utf16, password, err))
        return -1;
    OSSL_LIB_CTX *context = OSSL_LIB_CTX_new();
    OSSL_PROVIDER *legacy = context ? OSSL_PROVIDER_load(context, "legacy") : NULL;
    EVP_MD *md4 = legacy ? EVP_MD_fetch(context, "MD4", NULL) : NULL;
    bool good = md4 && EVP_Digest(utf16.data, utf16.size, hash, NULL, md4, NULL);
    EVP_MD_free(md4);
    if (legacy)
        OSSL_PROVIDER_unload(legacy);
    OSSL_LIB_CTX_free(context);
    OPENSSL_cleanse(utf16.data, utf16.size);
    return good ? 0 : rp_fail(err, RP_ERR_UNSUPPORTED, "NTLM needs MD4, which OpenSSL's legacy provider should have");
}

// 160 bits in an alphabet without letters that look alike, and no character that a shell knows.
static int invent(char password[33], struct rp_error *err)
{
    static const char alphabet[] = "abcdefghijkmnpqrstuvwxyz23456789";
    unsigned char random[32];
    if (RAND_bytes(random, sizeof random) != 1)
        return rp_fail(err, RP_ERR_IO, "no random numbers for a password");
    for (unsigned i = 0; i < 32; i++)
        password[i] = alphabet[random[i] % 32];
    password[32] = '\0';
    return 0;
}

int rp_lab_files_users(const char *directory, struct rp_lab_user *users, size_t count, struct rp_error *err)
{
    RP_CLEANUP(rp_buf_clear) struct rp_buf text = {0};
    for (size_t i = 0; i < count; i++) {
        unsigned char hash[16];
        if (invent(users[i].password, err) || nt_hash(users[i].password, hash, err))
            return -1;
        rp_buf_printf(&text, "LAB\\%s:0:XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX:", users[i].name);
        for (unsigned k = 0; k < 16; k++)
            rp_buf_printf(&text, "%02X", hash[k]);
        rp_buf_printf(&text, ":[U]:\n");
    }
    return write_private(directory, "ntlm-users", text.data, text.size, err);
}

// ---- disks and folders ---------------------------------------------------------------------------------------------

static int fill(struct rp_vhdx *vhdx, uint64_t size, uint64_t key, uint64_t writes, struct rp_error *err)
{
    uint8_t data[RP_LAB_BLOCK];
    for (uint64_t number = 1; number <= writes; number++) {
        uint64_t block = rp_lab_guests_block(key, number, size / RP_LAB_BLOCK);
        rp_lab_guests_fill(key, number, block, data);
        if (rp_vhdx_write(vhdx, data, sizeof data, block * RP_LAB_BLOCK, err))
            return -1;
    }
    rp_lab_guests_mark(key, writes, data);
    return rp_vhdx_write(vhdx, data, sizeof data, 0, err);
}

int rp_lab_files_disk(const char *path, uint64_t size, uint64_t key, uint64_t writes, struct rp_error *err)
{
    const struct rp_vhdx_create create = {.size = size};
    struct rp_fs *fs = rp_fs_posix();
    if (rp_vhdx_create(fs, path, &create, err))
        return -1;
    struct rp_vhdx *vhdx = rp_vhdx_open(fs, path, RP_VHDX_WRITE, NULL, err);
    if (!vhdx)
        return -1;
    int result = fill(vhdx, size, key, writes, err);
    return rp_vhdx_close(vhdx, result ? NULL : err) ? -1 : result;
}

int rp_lab_files_folder(const char *path, struct rp_error *err)
{
    return mkdir(path, 0700) && errno != EEXIST ? rp_fail_sys(err, errno, "%s: create", path) : 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st, (void)type, (void)where;
    remove(path);
    return 0;
}

void rp_lab_files_remove(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}
