"""``RouteMatch`` compiled: one predicate for the path, one for the rest of the request."""

from __future__ import annotations

from collections.abc import Callable

from proxy.match.headers import compile_header
from proxy.match.regex import BytesPredicate, compile_regex
from proxy.match.strings import compile_bytes
from proxy.model.config import ConfigError
from proxy.model.exchange import Head
from proxy.model.matcher import PathMatcher, QueryParameterMatcher
from proxy.model.route import RouteMatch

RequestPredicate = Callable[[Head, bytes], bool]

_GRPC = b"application/grpc"
_GRPC_AND = b"application/grpc+"


def compile_path(matcher: PathMatcher, field: str) -> BytesPredicate | None:
    """A predicate on the normalised path without query; ``None`` = every path."""
    if matcher.kind == "connect_matcher":
        return None
    if matcher.kind == "safe_regex":
        if not matcher.case_sensitive:
            raise ConfigError(
                f"{field}.case_sensitive", "a regular expression is always case-sensitive; use (?i)"
            )
        return compile_regex(matcher.value, f"{field}.safe_regex")
    value = matcher.value.encode()
    if matcher.kind == "path_separated_prefix" and (value[-1:] == b"/" or b"?" in value or b"#" in value):
        raise ConfigError(f"{field}.path_separated_prefix", "must not end in / or hold ? or #")
    if matcher.kind == "prefix" and value in (b"", b"/"):
        return None
    if matcher.case_sensitive:
        return _path_predicate(matcher.kind, value)
    folded = _path_predicate(matcher.kind, value.lower())
    return lambda path: folded(path.lower())


def _path_predicate(kind: str, value: bytes) -> BytesPredicate:
    if kind == "path":
        return value.__eq__
    if kind == "prefix":
        return lambda path: path.startswith(value)
    below = value + b"/"
    return lambda path: path.startswith(below) or path == value


def compile_request(match: RouteMatch, field: str) -> RequestPredicate | None:
    """A predicate on ``(head, path)`` for all but the path; ``None`` = no such conditions."""
    tests: list[RequestPredicate] = [
        compile_header(header, f"{field}.headers[{n}]") for n, header in enumerate(match.headers)
    ]
    tests += [
        _query_parameter(parameter, f"{field}.query_parameters[{n}]")
        for n, parameter in enumerate(match.query_parameters)
    ]
    if match.grpc:
        tests.insert(0, is_grpc)
    if not tests:
        return None
    if len(tests) == 1:
        return tests[0]
    return lambda head, path: all(test(head, path) for test in tests)


def is_grpc(head: Head, path: bytes) -> bool:
    """A request with a path and the content type of gRPC, which that of gRPC-Web is not."""
    kind = head.get(b"content-type")
    return bool(path) and kind is not None and (kind == _GRPC or kind.startswith(_GRPC_AND))


def _query_parameter(parameter: QueryParameterMatcher, field: str) -> RequestPredicate:
    """As in Envoy: the first parameter of that name counts, and nothing is unescaped."""
    name = parameter.name.encode()
    match = (
        None
        if parameter.string_match is None
        else compile_bytes(parameter.string_match, f"{field}.string_match")
    )

    def check(head: Head, path: bytes) -> bool:
        for part in head.target.partition(b"?")[2].split(b"&"):
            key, _, value = part.partition(b"=")
            if key == name:
                return match is None or match(value)
        return False

    return check
