"""Header values with operators: where routes (which know no operators) and formats (which know no routes) meet."""

from __future__ import annotations

from proxy.model.exchange import Exchange
from proxy.observe.format import compile_plain, has_operators
from proxy.route.edits import CompileValue, Value, safe_value
from proxy.route.rewrite import clean


def value_compiler(hostname: str) -> CompileValue:
    """A function from (format, field path) to ready bytes, or to a function of the exchange."""

    def compile_value(text: str, field: str) -> Value:
        clean(text, field)
        if not has_operators(text, field):
            return text.replace("%%", "%").strip(" \t").encode()
        # A missing value is nothing in a header, not the log's "-".
        render = compile_plain(text, field, missing="", hostname=hostname)

        def made(x: Exchange) -> bytes:
            return safe_value(render(x).encode("utf-8", "replace"))

        return made

    return compile_value
