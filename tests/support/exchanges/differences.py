"""The exchanges of which the outcome differs on purpose, by the row of docs/envoy-differences.md that says why.

A row's key is its first cell. With it stands what Tulle logs for the case's last request: status and details.
"""

from __future__ import annotations

_BAD = (400, "http1.codec_error")
_BAD_RESPONSE = (502, "upstream_reset_before_response_started{protocol_error}")
_FINE = (200, "via_upstream")

DIFFERENCES: dict[str, dict[str, tuple[int, str]]] = {
    "repeated `Host`, folded lines, bare CR or LF, several blanks or empty lines where one is meant": dict.fromkeys(
        (
            "request line b'GET  / HTTP/1.1'", "request line b'GET /  HTTP/1.1'",
            "request line b'GET\\t/\\tHTTP/1.1'",
            "request line b'GET\\t/ HTTP/1.1'", "request line b'GET /\\tHTTP/1.1'", "request line b'GET / HTTP/1.1 '",
            "request line b'GET / HTTP/1.1\\t'", "request line b'GET / HTTP/1.1\\r'",
            "request line b'GET\\r/ HTTP/1.1'",
            "request line b'GET /\\r HTTP/1.1'", "head with LF only", "request line ends in LF", "field ends in LF",
            "head ends in CRLF LF", "head ends in LF CRLF", "head ends in LF CRLF with a smuggled one",
            "field ends in CR CR LF", "CR in a value", "CR at the start of a value", "two empty lines first",
            "many empty lines first", "LF first", "two LF first", "CR first", "CR CR LF first", "folded with a space",
            "folded with a tab", "folded blank line", "folded content-length", "folded transfer-encoding",
            "folded and LF", "repeated b'host: h' b'host: i'", "host twice the same", "host twice",
            "host twice with absolute-form", "host three times", "field b' x: y'", "field b'\\tx: y'", "folded host",
            "transfer-encoding line b'x: y\\ntransfer-encoding: chunked'", "two empty lines between requests",
            "LF between requests", "transfer-encoding line b' transfer-encoding: chunked'",
            "transfer-encoding line b'x: y\\r\\n\\ttransfer-encoding: chunked'",
            "transfer-encoding line b'x: y\\rtransfer-encoding: chunked'", "trailers b'x: y\\r\\n z\\r\\n'",
            "trailers b'x: y\\n'", "trailers b'x: a\\rb\\r\\n'",
        ),
        _BAD,
    ),
    "chunks with blanks after the size, more digits than 16, control bytes in extensions, ends other than CRLF": {
        **dict.fromkeys(
            (
                "chunks b'0000000000000000000000000000003\\r\\nabc\\r\\n0\\r\\n\\r\\n'",
                "chunks b'3;x=\\x00\\r\\nabc\\r\\n0\\r\\n\\r\\n'", "chunks b'3;x=\\x7f\\r\\nabc\\r\\n0\\r\\n\\r\\n'",
                "chunks b'3;x=\\x1b\\r\\nabc\\r\\n0\\r\\n\\r\\n'", "chunks b'3 \\r\\nabc\\r\\n0\\r\\n\\r\\n'",
                "chunks b'3\\t\\r\\nabc\\r\\n0\\r\\n\\r\\n'", "chunks b'3\\r\\nabc\\n0\\r\\n\\r\\n'",
                "chunks b'3\\r\\nabc\\r\\n0\\r\\n\\n'", "chunks b'3\\r\\nabcX\\r\\n0\\r\\n\\r\\n'",
                "chunks b'3\\r\\nabcd\\r\\n0\\r\\n\\r\\n'", "chunks b'3\\r\\nab\\r\\n0\\r\\n\\r\\n'",
            ),
            _BAD,
        ),
        "a chunk of 2**64 - 1": _BAD,
        "a chunk of 2**63": _BAD,
    },
    "a chunk's size line longer than a head may be": {
        "extension beyond the limit": _BAD,
        "an unended extension": _BAD,
    },
    "a broken body of a request that is answered here": {"bad chunks to a local reply": _BAD},
    "user information in a URL or in `Host`, commas in `Host`": {
        "target b'http://user@h/'": (400, "http1.invalid_url"),
        "target b'http://user:pw@h/'": (400, "http1.invalid_url"),
        "host b'h,i'": (400, "http.invalid_authority"),
        "host b'u@h'": (400, "http.invalid_authority"),
        "host b'u:p@h'": (400, "http.invalid_authority"),
    },
    "a URL with a query and no path": {"target b'http://h?a=b'": _FINE},
    "versions other than HTTP/1.0 and HTTP/1.1, where HTTP/1.0 is allowed": dict.fromkeys(
        (
            "version b'HTTP/0.9' with HTTP/1.0 allowed", "version b'HTTP/1.2' with HTTP/1.0 allowed",
            "version b'HTTP/2.0' with HTTP/1.0 allowed", "version b'' with HTTP/1.0 allowed",
        ),
        (426, "low_version"),
    ),
    "`Transfer-Encoding` in HTTP/1.0": {
        "HTTP/1.0 chunked": (400, "http1.transfer_encoding_not_allowed"),
        "HTTP/1.0 chunked refused version": (400, "http1.transfer_encoding_not_allowed"),
    },
    "the version in answers to HTTP/1.0 heads that are refused": {
        "HTTP/1.0 chunked and content-length": (400, "http1.content_length_and_chunked_not_allowed"),
        "HTTP/1.0 identity": (501, "http1.invalid_transfer_encoding"),
    },
    "100 (Continue) to HTTP/1.0": {"100-continue in HTTP/1.0": _FINE},
    "`Connection: authorization` and other fields that matter behind us": dict.fromkeys(
        (
            "connection b'connection: cookie'", "connection b'connection: host'", "connection hides authorization",
            "content-length nominated away",
        ),
        _FINE,
    ),
    "fields that a backend's `Connection` nominates": {
        "response field b'connection: close, x-hop\\r\\nx-hop: 1'": _FINE
    },
    "`Proxy-Connection: close`": {
        "connection b'proxy-connection: close'": _FINE,
        "response field b'proxy-connection: close'": _FINE,
    },
    "`x-envoy-*` from a client": {
        "field b'x-envoy-foo: y'": _FINE,
        "CVE-2023-27487 client x-envoy-original-path": _FINE,
    },
    "heads and status lines of backends: folded lines, bare CR or LF, odd blanks, versions and statuses": dict.fromkeys(
        (
            "response field b'x: a\\r\\n b'", "response field b'x: a\\nb: c'", "response field b'x: a\\rb'",
            "status line b'HTTP/1.1 2000 OK'", "status line b'HTTP/1.1  200 OK'", "status line b'HTTP/1.1\\t200 OK'",
            "status line b'HTTP/1.1 200\\tOK'", "status line b'HTTP/0.9 200 OK'", "status line b'HTTP/1.2 200 OK'",
            "status line b'HTTP/2.0 200 OK'", "status line b'HTTP/1.1 200 O\\rK'", "a head in LF",
            "a head with a folded line",
        ),
        _BAD_RESPONSE,
    ),
    "a backend's chunks that are broken from the start": dict.fromkeys(
        ("chunked, bad size", "chunked, bad size later", "chunked, LF only", "chunked, terminator damaged"),
             _BAD_RESPONSE
    ),
    "a reset where the body ends with the connection": {
        "until the connection closes, reset": (
            200, "upstream_reset_after_response_started{connection_termination|[Errno_104]_Connection_reset_by_peer}",
        )
    },
    "101 to a request that did not ask for it": {"101 unasked": _BAD_RESPONSE},
    "1xx responses other than 100": {
        **dict.fromkeys(("102", "103 with links", "199", "two interim responses", "a hundred interim responses"),
             _FINE),
        "only an interim response": (503, "upstream_reset_before_response_started{connection_termination}"),
    },
    "reason phrases": {
        "status line b'HTTP/1.1 200 '": _FINE, "status line b'HTTP/1.1 200'": _FINE,
        "status line b'HTTP/1.1 200 Very Fine'": _FINE, "status line b'HTTP/1.1 200 \\xc3\\xa9'": _FINE,
        "status line b'HTTP/1.1 200 OK '": _FINE,
        "status line b'HTTP/1.1 299 X'": (299, "via_upstream"), "status line b'HTTP/1.1 500 Oh'": (500,
        "via_upstream"),
        "status line b'HTTP/1.1 599 X'": (599, "via_upstream"), "status line b'HTTP/1.1 600 X'": (600,
        "via_upstream"),
        "status line b'HTTP/1.1 999 X'": (999, "via_upstream"),
        "status line b\"HTTP/1.1 418 I'm a teapot\"": (418, "via_upstream"),
        "status line b'HTTP/1.1 413 Content Too Large'": (413, "via_upstream"),
    },
    "`Transfer-Encoding` in the answer to HEAD": {"HEAD without a length": _FINE},
    "trailers in HTTP/1.1": dict.fromkeys(
        (
            "trailers b'x: y\\r\\n'", "trailers b'x:y\\r\\n'", "trailers b'x: y\\r\\nx: z\\r\\n'",
            "trailers b'x: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' and so on, 7005 bytes",
            "trailers b'x: y\\r\\nx: y\\r\\nx: y\\r\\nx: y\\r\\nx: y\\r\\nx: y\\r\\nx: y' and so on, 594 bytes",
            "trailers b'x: y\\r\\nx: y\\r\\nx: y\\r\\nx: y\\r\\nx: y\\r\\nx: y\\r\\nx: y' and so on, 720 bytes",
            "chunked with trailers, then another request", "announced trailers", "chunked, trailers",
            "chunked, trailers asked for",
        ),
        _FINE,
    ),
    "a request after two of which the second was answered here, all at once": {"a local reply between": _FINE},
    "the body of a request that asks for another protocol": {
        "upgrade with a body": (200, "websocket_handshake_unsuccessful")
    },
    "`merge_slashes` on a path of slashes alone (`///`)": {"normalize: b'///'": _FINE},
}  # fmt: skip
