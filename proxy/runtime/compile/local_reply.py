"""``LocalReplyConfig`` to one function that rewrites the proxy's own answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from proxy.model.access_log import JsonLogFormat
from proxy.model.exchange import Exchange
from proxy.model.local_reply import BodyFormat, LocalReplyConfig
from proxy.model.reply import Reply
from proxy.observe.format import compile_json, compile_plain
from proxy.observe.log_filter import Predicate, compile_filter
from proxy.route.edits import HeaderEdits, compile_edits
from proxy.route.rewrite import clean
from proxy.runtime.compile.values import value_compiler
from proxy.runtime.runtime import RewriteReply

_Format = tuple[Callable[[Exchange], str], bytes]
_Mapper = tuple[Predicate, int | None, bytes | None, _Format | None, HeaderEdits | None]


def compile_local_reply(config: LocalReplyConfig, field: str, hostname: str) -> RewriteReply:
    """As in Envoy: the first mapper that takes the answer changes it, then a format makes the body."""
    value = value_compiler(hostname)
    mappers: list[_Mapper] = []
    for n, mapper in enumerate(config.mappers):
        at = f"{field}.mappers[{n}]"
        mappers.append(
            (
                compile_filter(mapper.filter, f"{at}.filter"),
                mapper.status_code,
                None if mapper.body is None else mapper.body.encode(),
                _format(mapper.body_format, f"{at}.body_format_override", hostname),
                compile_edits([(mapper.headers, (), f"{at}.headers")], value),
            )
        )
    default = _format(config.body_format, f"{field}.body_format", hostname)

    def rewrite(x: Exchange, reply: Reply) -> tuple[Reply, HeaderEdits | None]:
        chosen = default
        edits: HeaderEdits | None = None
        for matches, status, body, own_format, added in mappers:
            if matches(x):
                if status is not None and status != reply.status:
                    reply = replace(reply, status=status)
                if body is not None:
                    reply = replace(reply, body=body)
                chosen = own_format or default
                edits = added
                break
        x.answer_with(reply.status, reply.body)
        if chosen is not None:
            render, content_type = chosen
            reply = replace(
                reply,
                body=render(x).encode("utf-8", "replace"),
                headers=reply.headers + b"content-type: " + content_type + b"\r\n",
            )
        return reply, edits

    return rewrite


def _format(wanted: BodyFormat | None, field: str, hostname: str) -> _Format | None:
    if wanted is None:
        return None
    content_type = clean(wanted.content_type, f"{field}.content_type")
    if isinstance(wanted.format, JsonLogFormat):
        render = compile_json(wanted.format, field, omit_empty=wanted.omit_empty_values, hostname=hostname)
        return render, content_type or b"application/json"
    missing = "" if wanted.omit_empty_values else "-"
    return (
        compile_plain(wanted.format.text, field, missing=missing, hostname=hostname),
        content_type or b"text/plain",
    )
