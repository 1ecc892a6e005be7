"""What a request asks for: its method, the forms of its target, and ``host`` (RFC 9112 section 3.2)."""

from __future__ import annotations

import re
from typing import Final

from proxy.http1.errors import ProtocolError
from proxy.http1.head import Head
from proxy.model.reply import Reply
from proxy.stream.local_reply import MISSING_HOST, NOT_A_PATH, QUERY_WITHOUT_TYPE
from proxy.stream.tunnel import connect_authority

METHODS: Final = frozenset(
    (
        b"ACL", b"BIND", b"CHECKOUT", b"CONNECT", b"COPY", b"DELETE", b"GET", b"HEAD", b"LINK", b"LOCK", b"MERGE",
        b"MKACTIVITY", b"MKCALENDAR", b"MKCOL", b"MOVE", b"MSEARCH", b"NOTIFY", b"OPTIONS", b"PATCH", b"POST",
        b"PROPFIND", b"PROPPATCH", b"PURGE", b"PUT", b"QUERY", b"REBIND", b"REPORT", b"SEARCH", b"SOURCE",
        b"SUBSCRIBE", b"TRACE", b"UNBIND", b"UNLINK", b"UNLOCK", b"UNSUBSCRIBE",
    )
)  # fmt: skip
"""What Envoy takes without ``allow_custom_methods``."""

_absolute = re.compile(rb"([A-Za-z][A-Za-z0-9+.\-]*+)://([^/?#]*+)([/?#].*)?").fullmatch
_authority = re.compile(rb"[A-Za-z0-9\-._~!$&'()*+;=:%\[\]]*+").fullmatch
# What a URL may have there: a name or an address, and a port that is a number.
_url_host = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+;=]++|\[[0-9A-Fa-f:.]++\])(?::([0-9]{1,5}+))?").fullmatch


def resolve(head: Head, *, any_method: bool = False) -> bytes | Reply:
    """The request's target in origin form; ``head.host`` and ``names[b"host"]`` become the authority it is for.

    An absolute-form target replaces ``host`` (RFC 9112 section 3.2.2); a CONNECT request has no path: "".
    ``any_method``: Envoy's ``allow_custom_methods``. Returns the reply that refuses other forms; raises
    ``ProtocolError``.
    """
    method = head.method
    if method not in METHODS and not any_method:
        raise ProtocolError("an unknown method")
    target = head.target
    if target[:1] != b"/":
        if method == b"CONNECT":
            head.set_host(connect_authority(head))
            return b""
        if target == b"*":
            if method != b"OPTIONS":
                raise ProtocolError("* is a target of OPTIONS only", details="http1.invalid_url")
            return MISSING_HOST if head.host is None else NOT_A_PATH
        target = _from_url(head, target)
    elif method == b"CONNECT":
        raise ProtocolError("the target of CONNECT is a path", details="http1.invalid_url")
    host = head.host
    if host is None:
        return MISSING_HOST
    if not _authority(host):
        raise ProtocolError("bad host", details="http.invalid_authority")
    if method == b"QUERY" and head.get(b"content-type") is None:
        return QUERY_WITHOUT_TYPE
    return target


def _from_url(head: Head, target: bytes) -> bytes:
    """The path and query of an absolute-form target, whose host becomes that of the request."""
    match = _absolute(target)
    if match is None:
        raise ProtocolError("the request target is neither a path nor a URL")
    scheme, host, rest = match.groups()
    if scheme.lower() not in (b"http", b"https"):
        raise ProtocolError(
            "the scheme of the request target is not http or https", details="http1.invalid_scheme"
        )
    if not _authority(host.replace(b"@", b"")) or (rest is not None and rest[:1] == b"#"):
        raise ProtocolError("characters in the request target that no URL has there")
    found = _url_host(host)
    if found is None or int(found[1] or 0) > 65535:
        raise ProtocolError("bad authority in the request target", details="http1.invalid_url")
    head.set_host(host)
    if rest is None:
        return b"/"
    return rest if rest[:1] == b"/" else b"/" + rest
