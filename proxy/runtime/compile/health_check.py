"""What of a health check is decided when the configuration changes: the edits of its request, and the verdict.

Nobody is asked here. The request is not made for anybody, so its headers have no operators.
"""

from __future__ import annotations

from proxy.cluster.health_answer import compile_http
from proxy.model.config import ConfigError
from proxy.model.health_check import GrpcCheck, HealthCheck, HttpCheck
from proxy.observe.format import has_operators
from proxy.route.edits import HeaderEdits, compile_edits


def check_health_check(config: HealthCheck, field: str) -> None:
    """Raises ``ConfigError`` for what cannot be used."""
    what = config.check
    request_edits(config, field)
    if isinstance(what, HttpCheck):
        compile_http(what, f"{field}.http_health_check", _nothing)


def request_edits(config: HealthCheck, field: str) -> HeaderEdits | None:
    """What to do to the head of the request. Raises ``ConfigError`` under ``field``."""
    what = config.check
    if isinstance(what, HttpCheck):
        at = f"{field}.http_health_check.request_headers"
        return compile_edits([(what.headers_to_add, what.headers_to_remove, at)], _plain)
    if isinstance(what, GrpcCheck):
        at = f"{field}.grpc_health_check.initial_metadata"
        try:
            return compile_edits([(what.initial_metadata, (), at)], _plain)
        except ConfigError as error:
            # A list of its own, which nothing is removed by.
            raise ConfigError(error.path.replace(f"{at}_to_add", at), error.message) from None
    return None


def _plain(text: str, field: str) -> bytes:
    if has_operators(text, field):
        raise ConfigError(field, "operators have no meaning in a health check")
    return text.replace("%%", "%").strip(" \t").encode()


def _nothing() -> None:
    return
