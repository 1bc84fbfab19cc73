// A real MIT KDC (krb5kdc) of the realm REFPOINT.TEST for one test program, on loopback, in a folder of its own; and
// a file of NTLM users. Nothing of the machine's own Kerberos is read or written: KRB5_CONFIG and what goes with it
// is set for this process.
#ifndef TEST_WSMAN_KDC_H
#define TEST_WSMAN_KDC_H

struct kdc {
    char folder[64];
    char keytab[96];        // HTTP/localhost and HTTP/alias.refpoint.test
    char other_keytab[96];  // HTTP/localhost with a key that is not the KDC's
    char users[96];         // LAB:admin:secret and others, as gss-ntlmssp reads it
    int pid, port;
};
// alice@REFPOINT.TEST has the password "wonderland". 0, or -1 where it cannot be started.
int kdc_start(struct kdc *kdc);
// Only folder, empty Kerberos settings and users' file: no KDC at all.
int kdc_without(struct kdc *kdc);
void kdc_stop(struct kdc *kdc); // removes the folder
// Writes a ccache with a ticket of alice that lives that long. Its path in `path`.
int kdc_ticket(struct kdc *kdc, const char *name, int seconds, char path[128]);
// Runs a program to its end, at most 30 s; its output goes to FOLDER/log. The exit status, or -1.
int kdc_run(struct kdc *kdc, const char *const arguments[]);

#endif
