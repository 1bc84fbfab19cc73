#!/usr/bin/python3
"""winrm-client.py URL METHOD USER PASSWORD CA: sends messages with python3-winrm's Transport over one connection, sealed
over http. Prints the answers; exit status 1 and the exception when it raises one."""

import os, sys, tempfile

# python3-winrm's NTLM needs MD4, which OpenSSL 3 has in a provider of its own; its configuration is read when it is loaded.
settings = tempfile.NamedTemporaryFile('w', suffix='.cnf')
settings.write('openssl_conf = init\n[init]\nproviders = all\n[all]\ndefault = on\nlegacy = on\n[on]\nactivate = 1\n')
settings.flush()
os.environ['OPENSSL_CONF'] = settings.name

from winrm.transport import Transport
from winrm.exceptions import WinRMTransportError

url, method, user, password, ca = sys.argv[1:]
transport = Transport(url, username=user, password=password, service='HTTP', auth_method=method, ca_trust_path=ca,
                      read_timeout_sec=20, message_encryption='always' if url.startswith('http:') else 'auto')


def send(message):
    answer = transport.send_message(message)
    text = answer.decode() if isinstance(answer, bytes) else answer
    assert text.endswith(message + '</echo>'), text[:200]
    return text[:-len(message + '</echo>')]


try:
    for message in ['<first/>', '<second/>', '<long>' + 'ä' * 100000 + '</long>']:
        print(send(message))
    try:
        send('<fault/>')
        sys.exit('a fault came as a success')
    except WinRMTransportError as fault:
        print('fault', fault.code, b'<fault/></echo>' in fault.response_text)
    print(send('<after/>'))
except Exception as error:
    print(type(error).__name__, error)
    sys.exit(1)
