"""Which host and which path a request is for: request target forms and ``host`` (RFC 9112 section 3.2)."""

from __future__ import annotations

import re

from proxy.http1.errors import ProtocolError
from proxy.http1.head import Head
from proxy.model.reply import Reply
from proxy.stream.local_reply import CONNECT_REFUSED, MISSING_HOST, NOT_A_PATH

_absolute = re.compile(rb"([A-Za-z][A-Za-z0-9+.\-]*+)://([^/?#]++)([/?#].*)?").fullmatch
_authority = re.compile(rb"[A-Za-z0-9\-._~!$&'()*+;=:%\[\]]*+").fullmatch


def resolve(head: Head) -> bytes | Reply:
    """The request's target in origin form; ``head.host`` and ``names[b"host"]`` become the authority it is for.

    An absolute-form target replaces ``host`` (RFC 9112 section 3.2.2). Returns the reply that refuses other forms;
    raises ``ProtocolError``.
    """
    target = head.target
    if target[:1] != b"/":
        if head.method == b"CONNECT":
            return CONNECT_REFUSED
        if target == b"*":
            return NOT_A_PATH
        match = _absolute(target)
        if match is None:
            raise ProtocolError("the request target is neither a path nor a URL", details="http1.invalid_url")
        scheme, host, rest = match.groups()
        if scheme.lower() not in (b"http", b"https"):
            raise ProtocolError(
                "the scheme of the request target is not http or https", details="http1.invalid_scheme"
            )
        if b"@" in host:
            raise ProtocolError("user information in the request target", details="http1.invalid_url")
        head.set_host(host)
        if rest is None:
            target = b"/"
        else:
            target = rest if rest[:1] == b"/" else b"/" + rest
    elif head.method == b"CONNECT":
        return CONNECT_REFUSED
    host_now = head.host
    if host_now is None:
        return MISSING_HOST
    if not _authority(host_now):
        raise ProtocolError("bad host", details="http.invalid_authority")
    return target
