"""The configurations that the exchanges are played against."""

from __future__ import annotations

from tests.support.two_proxies import Options, cluster_http, rbac, says

_ADMIN = {"url_path": {"path": {"prefix": "/admin"}}}
_SECRET = {"header": {"name": "x-secret", "string_match": {"exact": "1"}}}
_CANONICAL = {
    "normalize_path": True,
    "merge_slashes": True,
    "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
}

CONFIGS = {
    "plain": Options(),
    "http10": Options({"http_protocol_options": {"accept_http_10": True}}),
    "methods": Options({"http_protocol_options": {"allow_custom_methods": True}}),
    "normalize": Options({"normalize_path": True, "merge_slashes": True}),
    "unescape": Options(
        {"normalize_path": True, "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD"},
    ),
    "reject": Options({"normalize_path": True, "path_with_escaped_slashes_action": "REJECT_REQUEST"}),
    "redirect": Options({"path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT"}),
    "limits": Options(
        {"max_request_headers_kb": 2, "common_http_protocol_options": {"max_headers_count": 10}},
    ),
    "responses": Options(
        cluster=cluster_http(
            common_http_protocol_options={"max_headers_count": 20, "max_response_headers_kb": 80}
        )
    ),
    "once": Options({"common_http_protocol_options": {"max_requests_per_connection": 1}}),
    "once-upstream": Options(
        cluster=cluster_http(common_http_protocol_options={"max_requests_per_connection": 1})
    ),
    "upgrade": Options({"upgrade_configs": [{"upgrade_type": "websocket"}]}),
    "edge": Options({"use_remote_address": True, "always_set_request_id_in_response": True}),
    "counted": Options(
        {"max_request_headers_kb": 2, "common_http_protocol_options": {"max_headers_count": 10}}
    ),
    "deny": Options(_CANONICAL, filters=(rbac("DENY", admin=_ADMIN, secret=_SECRET),)),
    "allow": Options(
        _CANONICAL,
        filters=(
            rbac("ALLOW", admin=_ADMIN, secret=_SECRET, probe={"url_path": {"path": {"exact": "/probe"}}}),
        ),
    ),
    "hosts": Options(
        hosts=(
            says("svc", "svc.foo"),
            says("port", "svc.foo:81"),
            says("wild", "*.bar"),
            says("dot", "svc.dot."),
        ),
    ),
}
