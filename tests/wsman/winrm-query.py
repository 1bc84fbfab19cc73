#!/usr/bin/python3
"""winrm-query.py URL USER PASSWORD QUERY: sends an Enumerate by python3-winrm's Transport, NTLM, sealed; prints the answer."""

import os, sys, tempfile

settings = tempfile.NamedTemporaryFile('w', suffix='.cnf')  # MD4, before anything loads OpenSSL: see winrm-client.py
settings.write('openssl_conf = init\n[init]\nproviders = all\n[all]\ndefault = on\nlegacy = on\n[on]\nactivate = 1\n')
settings.flush()
os.environ['OPENSSL_CONF'] = settings.name

import uuid
from xml.sax.saxutils import escape
from winrm.transport import Transport

url, user, password, query = sys.argv[1:]
transport = Transport(url, username=user, password=password, auth_method='ntlm', message_encryption='always',
                      read_timeout_sec=20)
print(transport.send_message(f'''<?xml version="1.0" encoding="utf-8"?>
<env:Envelope xmlns:env="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing"
 xmlns:n="http://schemas.xmlsoap.org/ws/2004/09/enumeration" xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd"
 xmlns:p="http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd"><env:Header><a:To>{url}</a:To><a:ReplyTo>
 <a:Address mustUnderstand="true">http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address></a:ReplyTo>
 <w:MaxEnvelopeSize mustUnderstand="true">153600</w:MaxEnvelopeSize><a:MessageID>uuid:{uuid.uuid4()}</a:MessageID>
 <w:Locale mustUnderstand="false" xml:lang="en-US"/><p:DataLocale mustUnderstand="false" xml:lang="en-US"/>
 <w:OperationTimeout>PT20S</w:OperationTimeout>
 <w:ResourceURI mustUnderstand="true">http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/*</w:ResourceURI>
 <a:Action mustUnderstand="true">http://schemas.xmlsoap.org/ws/2004/09/enumeration/Enumerate</a:Action></env:Header>
 <env:Body><n:Enumerate><w:OptimizeEnumeration/><w:MaxElements>50</w:MaxElements>
 <w:Filter Dialect="http://schemas.microsoft.com/wbem/wsman/1/WQL">{escape(query)}</w:Filter></n:Enumerate></env:Body>
</env:Envelope>''').decode())
