"""Header mutations, which every level of a route configuration has (``HeaderValueOption``)."""

from __future__ import annotations

import re
from typing import Any

from proxy.model.route import AppendAction, HeaderMutations, HeaderValueOption
from proxy.xds.decode.fields import UNSUPPORTED, check, enum, forbid, known

FIELDS = (
    "request_headers_to_add",
    "request_headers_to_remove",
    "response_headers_to_add",
    "response_headers_to_remove",
)

_OPTION = known("header", "append", "append_action")
_HEADER = known("key", "value")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.1
_FORBIDDEN_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_ACTIONS: dict[str, AppendAction] = {
    "APPEND_IF_EXISTS_OR_ADD": "APPEND_IF_EXISTS_OR_ADD",
    "ADD_IF_ABSENT": "ADD_IF_ABSENT",
    "OVERWRITE_IF_EXISTS_OR_ADD": "OVERWRITE_IF_EXISTS_OR_ADD",
    "OVERWRITE_IF_EXISTS": "OVERWRITE_IF_EXISTS",
}
_NONE = HeaderMutations()


def mutations(message: Any, path: str) -> HeaderMutations:
    """The four header lists of one level."""
    request_add, request_remove = message.request_headers_to_add, message.request_headers_to_remove
    response_add, response_remove = message.response_headers_to_add, message.response_headers_to_remove
    if not (request_add or request_remove or response_add or response_remove):
        return _NONE
    return HeaderMutations(
        added(request_add, f"{path}.request_headers_to_add"),
        removed(request_remove, f"{path}.request_headers_to_remove"),
        added(response_add, f"{path}.response_headers_to_add"),
        removed(response_remove, f"{path}.response_headers_to_remove"),
    )


def added(messages: Any, path: str) -> tuple[HeaderValueOption, ...]:
    """A list of headers to add."""
    return tuple(_option(message, f"{path}[{index}]") for index, message in enumerate(messages))


def _option(message: Any, path: str) -> HeaderValueOption:
    check(message, path, _OPTION)
    check(message.header, f"{path}.header", _HEADER)
    _check_name(message.header.key, f"{path}.header.key")
    value: str = message.header.value
    forbid(
        _FORBIDDEN_IN_VALUE.search(value) is not None,
        f"{path}.header.value",
        "holds a control character",
    )
    action = enum(message, path, "append_action", _ACTIONS)
    if message.HasField("append"):
        forbid(
            action != "APPEND_IF_EXISTS_OR_ADD", path, "set append (deprecated) or append_action, not both"
        )
        action = "APPEND_IF_EXISTS_OR_ADD" if message.append.value else "OVERWRITE_IF_EXISTS_OR_ADD"
    return HeaderValueOption(message.header.key, value, action)


def removed(names: Any, path: str) -> tuple[str, ...]:
    """A list of names of headers to remove."""
    for index, name in enumerate(names):
        _check_name(name, f"{path}[{index}]")
    return tuple(names)


def _check_name(name: str, path: str) -> None:
    forbid(name.startswith(":") or name.lower() == "host", path, f"{name!r}: changing it {UNSUPPORTED}")
    forbid(_NAME.fullmatch(name) is None, path, f"{name!r} is not a header name")
