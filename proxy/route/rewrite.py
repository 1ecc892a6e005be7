"""Rewrites of the request target, and redirects."""

from __future__ import annotations

from collections.abc import Callable

from proxy.model.config import ConfigError
from proxy.model.matcher import PathMatcher
from proxy.model.reply import Reply
from proxy.model.route import RedirectAction
from proxy.route.domains import without_port

RewriteTarget = Callable[[bytes], bytes]
Redirect = Callable[[bytes, bytes, bytes], Reply]

_REDIRECT_CODES = frozenset((301, 302, 303, 307, 308))


def compile_prefix_rewrite(match: PathMatcher, replacement: str, field: str) -> RewriteTarget:
    """A function from a matched target to the target with the matched part of its path replaced.

    What was matched is the prefix, or (``path``, ``safe_regex``) the whole path; the query stays.
    """
    new = clean(replacement, field)
    if match.kind in ("prefix", "path_separated_prefix"):
        length = len(match.value.encode())
        return lambda target: new + target[length:]

    def rewrite(target: bytes) -> bytes:
        at = target.find(b"?")
        return new if at < 0 else new + target[at:]

    return rewrite


def compile_redirect(action: RedirectAction, match: PathMatcher, field: str) -> Redirect:
    """A function from (authority, normalised target, scheme) to the redirecting reply. Raises ``ConfigError``."""
    if action.response_code not in _REDIRECT_CODES:
        raise ConfigError(
            f"{field}.response_code", f"{action.response_code} is not one of 301, 302, 303, 307, 308"
        )
    if action.path is not None and action.prefix_rewrite is not None:
        raise ConfigError(f"{field}.path_redirect", "exclusive with prefix_rewrite")
    new_scheme = clean(action.scheme or "", f"{field}.scheme_redirect").lower()
    new_host = clean(action.host or "", f"{field}.host_redirect")
    new_path = clean(action.path or "", f"{field}.path_redirect")
    port = b":%d" % action.port if action.port else b""
    rewrite = None
    if action.prefix_rewrite is not None:
        rewrite = compile_prefix_rewrite(match, action.prefix_rewrite, f"{field}.prefix_rewrite")

    def redirect(host: bytes, target: bytes, scheme: bytes) -> Reply:
        authority = new_host or host
        if port:
            authority = without_port(authority) + port
        elif not new_host and new_scheme and new_scheme != scheme:
            authority = _without_default_port(authority, scheme)
        path, mark, query = target.partition(b"?")
        if new_path:
            path = new_path
        elif rewrite is not None:
            path = rewrite(path)
        if mark and not action.strip_query and not (new_path and b"?" in new_path):
            path += mark + query
        location = (new_scheme or scheme) + b"://" + authority + path
        return Reply(
            action.response_code, headers=b"location: " + location + b"\r\n", details="direct_response"
        )

    return redirect


def _without_default_port(authority: bytes, scheme: bytes) -> bytes:
    """Envoy: the port that is the default of the old scheme would be wrong for the new one."""
    default = b":80" if scheme == b"http" else b":443"
    return authority[: -len(default)] if authority.endswith(default) else authority


def clean(text: str, field: str) -> bytes:
    """The bytes of a configured part of a URL or header. Raises ``ConfigError`` if it holds control characters."""
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ConfigError(field, "must not hold control characters")
    return text.encode()
