#include "wsman/binding.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <string.h>

void rp_binding_of_certificate(const void *x509, struct rp_buf *out)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    int hash = NID_undef;
    rp_buf_reset(out);
    if (!X509_get_signature_info((X509 *)(uintptr_t)x509, &hash, NULL, NULL, NULL) || hash == NID_undef)
        return;
    // RFC 5929 4.1: the hash of the signature, but SHA-256 where that is MD5 or SHA-1
    const EVP_MD *md = hash == NID_md5 || hash == NID_sha1 ? EVP_sha256() : EVP_get_digestbynid(hash);
    if (!md || !X509_digest(x509, md, digest, &size))
        return;
    rp_buf_printf(out, "tls-server-end-point:");
    rp_buf_append(out, digest, size);
}

void rp_binding_of_pem(const char *pem, struct rp_buf *out)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    rp_buf_reset(out);
    if (certificate)
        rp_binding_of_certificate(certificate, out);
    X509_free(certificate);
    BIO_free(bio);
}
