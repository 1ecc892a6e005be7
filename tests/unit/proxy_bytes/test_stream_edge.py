"""Request identifiers."""

from __future__ import annotations

import uuid

from proxy.http1.head import scan_request
from proxy.runtime.compile import CompileEnv
from proxy.runtime.hub import Hub
from proxy.stream.edge import HttpEdge
from tests.fakes.sidecar import chain, config, direct, http, listener


def edge(**options: object) -> HttpEdge:
    hub = Hub(CompileEnv())
    hub.apply(config(listener(chain(http(direct("/", 200), **options)))))
    compiled = hub.current.listeners["l"].chains[0].http
    assert compiled is not None
    return HttpEdge(compiled)


def test_new_identifiers_are_random_uuids() -> None:
    head = scan_request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert head is not None
    made = {edge().request_id(head) for _ in range(500)}
    assert len(made) == 500
    for one in made:
        parsed = uuid.UUID(one.decode())
        assert parsed.version == 4 and parsed.variant == uuid.RFC_4122 and str(parsed).encode() == one


def test_what_came_is_kept_where_it_is_trusted() -> None:
    head = scan_request(b"GET / HTTP/1.1\r\nHost: a\r\nx-request-id: mine\r\n\r\n")
    assert head is not None
    assert edge().request_id(head) == b"mine"
    assert edge(use_remote_address=True, preserve_external_request_id=True).request_id(head) == b"mine"
    assert edge(use_remote_address=True).request_id(head) != b"mine"
    assert edge(generate_request_id=False).request_id(head) == b"mine"
