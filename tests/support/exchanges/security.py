"""Attacks by name, CVE numbers as pointers: on paths, hosts and fields, past policies and towards the backend.

``deny`` refuses ``/admin`` and ``x-secret: 1``; ``allow`` refuses all else.
"""

from __future__ import annotations

from tests.support.exchanges.build import GET, chunked, get, message, ok, post, says
from tests.support.raw_exchange import OK, Answer, Case

_HOST = b"host: h"

FIELDS = (
    Case("CVE-2019-9900 NUL in a value", get(b"x-a: a\x00b")),
    Case("CVE-2019-18802 blank after a value", get(b"x-a: a ")),
    Case("CVE-2019-18802 blanks after host", message(GET, b"host: h \t")),
    Case("CVE-2020-25017 repeated lines", get(b"x-a: 1", b"x-b: 2", b"x-a: 3")),
    Case("CVE-2021-40346 huge name", get(b"content-length0" + b"a" * 255 + b": 1")),
    Case("CVE-2023-25725 empty name", get(b": x", b"x-a: a")),
    Case("CVE-2023-45539 fragment in the path", get(target=b"/admin#x")),
    Case("CVE-2023-27487 client x-envoy-original-path", get(b"x-envoy-original-path: /evil")),
    Case("CVE-2024-45806 client x-envoy headers", get(b"x-envoy-upstream-rq-timeout-ms: 1",
         b"x-envoy-retry-on: 5xx")),
    Case("CVE-2024-45806 client client-cert", get(b"x-forwarded-client-cert: By=evil;URI=spiffe://evil")),
    Case("CVE-2023-35944 scheme in capitals", message(b"GET HTTP://h/ HTTP/1.1", _HOST)),
    Case("connection hides authorization", get(b"connection: authorization", b"authorization: x")),
    Case("connection hides x-forwarded-client-cert", get(b"connection: x-forwarded-client-cert",
         b"x-forwarded-client-cert: x")),
    Case("CVE-2025-64763 bytes before 101", get(b"connection: upgrade", b"upgrade: websocket") + b"early",
         says(ok(b"content-length: 0", line=b"HTTP/1.1 403 Forbidden")), config="upgrade"),
    Case("httpoxy", get(b"proxy: http://evil/")),
)  # fmt: skip
PATHS = tuple(
    Case(f"CVE-{cve} {config}: {target!r}", get(target=target), config=config)
    for config in ("deny", "allow")
    for cve, target in (
        ("2021-31920", b"//admin"), ("2021-31920", b"///admin"), ("2021-31920", b"/x//../admin"),
        ("2021-29492", b"/%2fadmin"), ("2021-29492", b"/x%2f..%2fadmin"), ("2021-29492", b"/\\admin"),
        ("2021-29492", b"/%5cadmin"), ("2021-29492", b"/%5Cadmin"), ("2021-29492", b"/x%5c..%5cadmin"),
        ("2020-8595", b"/x/%2e%2e/admin"), ("2020-8595", b"/x/%2E./admin"), ("2020-8595", b"/./admin"),
        ("2020-8595", b"/%2e/admin"), ("2020-8595", b"/%61dmin"), ("2020-8595", b"/%2561dmin"), ("2020-8595",
             b"/ADMIN"),
        ("2021-39156", b"/admin#x"), ("2021-39156", b"/x#/../admin"), ("2021-39156", b"/#/admin"),
        ("2019-9901", b"/admin?q"), ("2019-9901", b"/admin;x"), ("2019-9901", b"/x?/../admin"), ("2019-9901",
             b"/admin/"),
        ("2019-9901", b"/admin/.."), ("2019-9901", b"/x/../admin?a=//b"), ("2019-9901", b"/admin%00"),
        ("2019-9901", b"http://h//admin"), ("2019-9901", b"http://h/x/../admin"), ("2019-9901", b"/x/..;/admin"),
        ("2019-9901", b"/adm%69n"), ("2019-9901", b"/admin%2f"), ("2019-9901", b"/"), ("2019-9901", b"/other"),
    )
)  # fmt: skip
REPEATED = tuple(
    Case(f"CVE-2026-26308 {config}: {fields!r}", get(*fields, target=b"/other"), config=config)
    for config in ("deny", "allow")
    for fields in (
        (b"x-secret: 1",), (b"X-Secret: 1",), (b"x-secret:1",), (b"x-secret: 1 ",), (b"x-secret: \t1",),
             (b"x-secret: 2",),
        (b"x-secret: 1", b"x-secret: 1"), (b"x-secret: 1", b"x-secret: 2"), (b"x-secret: 2", b"x-secret: 1"),
        (b"x-secret: 1,2",), (b"x-secret: 1, 2",), (b"x-secret: 2", b"x: y", b"x-secret: 1"), (b"x-secret:",),
        (b"x-secret: 1", b"connection: x-secret"),
        (b"x-secret: 1", b"connection: connection, x-secret"), (b"x_secret: 1",),
    )
)  # fmt: skip
HOSTS = tuple(
    Case(f"CVE-2021-39155 host {value!r}", message(GET, b"host: " + value), config="hosts")
    for value in (
        b"svc.foo", b"Svc.Foo", b"SVC.FOO", b"svc.foo.", b"svc.foo:80", b"svc.foo:81", b"Svc.Foo:81", b"svc.foo:081",
        b"svc.foo:",
        b"a.bar", b"A.BAR", b"a.bar:80", b".bar", b"bar", b"svc.dot.", b"svc.dot", b"xsvc.foo", b"svc.foo.evil",
    )
) + tuple(
    Case(f"CVE-2021-39155 URL {value!r}", message(b"GET http://" + value + b"/ HTTP/1.1", _HOST), config="hosts")
    for value in (b"svc.foo", b"SVC.foo", b"svc.foo.", b"svc.foo:81", b"a.bar")
)  # fmt: skip
SMUGGLING = (
    Case("CVE-2025-43859 chunk terminator", chunked(b"3\r\nabcXX0\r\n\r\n")),
    Case("CVE-2025-53643 trailers hide a request", chunked(b"0\r\nx: y\r\nGET /smuggled HTTP/1.1\r\n\r\n")),
    Case("CVE-2021-40346 a length in a huge name",
         post(b"content-length0" + b"a" * 255 + b":", b"content-length: 3", body=b"abc")),
    Case("CL.TE", post(b"content-length: 6", b"transfer-encoding: chunked", body=b"0\r\n\r\nG")),
    Case("TE.CL", post(b"transfer-encoding: chunked", b"content-length: 4",
         body=b"5c\r\nGPOST / HTTP/1.1\r\n\r\n0\r\n\r\n")),
    Case("TE.TE", post(b"transfer-encoding: chunked", b"transfer-encoding: cow", body=b"0\r\n\r\n")),
    Case("CL.0", post(b"content-length: %d" % len(get(target=b"/smuggled")), body=get(target=b"/smuggled"))),
    Case("response splitting", get(), (Answer(ok(b"x: a\r\n\r\nHTTP/1.1 200 OK", b"content-length: 0")),),
         config="plain"),
    Case("response queue", get(target=b"/1"), (Answer(OK + OK),)),
)  # fmt: skip

CASES = FIELDS + PATHS + REPEATED + HOSTS + SMUGGLING
