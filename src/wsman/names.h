// The names of WS-Management (DSP0226, DSP0227, MS-WSMV): namespaces, actions, resource URIs.
#ifndef RP_WSMAN_NAMES_H
#define RP_WSMAN_NAMES_H

#define RP_NS_SOAP "http://www.w3.org/2003/05/soap-envelope"                           // s
#define RP_NS_ADDRESSING "http://schemas.xmlsoap.org/ws/2004/08/addressing"            // a
#define RP_NS_WSMAN "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd"                   // w
#define RP_NS_ENUMERATION "http://schemas.xmlsoap.org/ws/2004/09/enumeration"          // n
#define RP_NS_TRANSFER "http://schemas.xmlsoap.org/ws/2004/09/transfer"                // x
#define RP_NS_IDENTITY "http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd" // wsmid
#define RP_NS_CIM "http://schemas.dmtf.org/wbem/wscim/1/common"                        // cim
#define RP_NS_BINDING "http://schemas.dmtf.org/wbem/wsman/1/cimbinding.xsd"            // b
#define RP_NS_MICROSOFT "http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd"          // p in requests' headers
#define RP_NS_MICROSOFT_FAULT "http://schemas.microsoft.com/wbem/wsman/1/wsmanfault"   // f
#define RP_NS_XSI "http://www.w3.org/2001/XMLSchema-instance"

#define RP_FAULT_DETAIL "http://schemas.dmtf.org/wbem/wsman/1/wsman/faultDetail/"

#define RP_ADDRESS_ANONYMOUS RP_NS_ADDRESSING "/role/anonymous"
#define RP_ACTION_ENUMERATE RP_NS_ENUMERATION "/Enumerate" // responses: + "Response"
#define RP_ACTION_PULL RP_NS_ENUMERATION "/Pull"
#define RP_ACTION_RELEASE RP_NS_ENUMERATION "/Release"
#define RP_ACTION_GET RP_NS_TRANSFER "/Get"
#define RP_ACTION_PUT RP_NS_TRANSFER "/Put"
#define RP_ACTION_DELETE RP_NS_TRANSFER "/Delete"
#define RP_ACTION_CREATE RP_NS_TRANSFER "/Create"

// A resource is RP_URI_WMI namespace "/" class, or RP_URI_DMTF class with the selector __cimnamespace; compared without
// regard to case.
#define RP_URI_WMI "http://schemas.microsoft.com/wbem/wsman/1/wmi/"
#define RP_URI_DMTF "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
#define RP_URI_DMTF_ALL "http://schemas.dmtf.org/wbem/wscim/1/*"

#define RP_DIALECT_WQL "http://schemas.microsoft.com/wbem/wsman/1/WQL"
#define RP_DIALECT_SELECTOR "http://schemas.dmtf.org/wbem/wsman/1/wsman/SelectorFilter"
#define RP_DIALECT_ASSOCIATION "http://schemas.dmtf.org/wbem/wsman/1/cimbinding/associationFilter"

#endif
