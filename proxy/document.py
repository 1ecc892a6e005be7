"""A file's text as YAML or JSON, to plain data. It refuses what could mean two things or grow without bound."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from proxy.model.config import ConfigError

MAX_DEPTH = 100


class _NotPlainJsonError(ValueError):
    """YAML must be asked: it knows the lines."""


def parse(text: str, name: str) -> Any:
    """The document in ``text``. ``name`` is what messages call the file. Raises :class:`ConfigError`.

    JSON is YAML, but a parser that knows no more than JSON is a hundred times faster.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_repetition, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _yaml(text, name)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _NotPlainJsonError
    return made


def _refuse(constant: str) -> NoReturn:
    raise _NotPlainJsonError(constant)


def _yaml(text: str, name: str) -> Any:
    import yaml

    try:
        from yaml import CSafeLoader as SafeLoader
    except ImportError:  # PyYAML was built without libyaml
        from yaml import SafeLoader  # type: ignore[assignment]

    class Loader(SafeLoader):
        """Refuses repeated keys, of which only the last would count."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if key.value in seen:
                    raise ConfigError(f"line {key.start_mark.line + 1}", f"{key.value!r} is there twice")
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    deeper = (
        *(yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken),
        *(yaml.BlockSequenceStartToken, yaml.BlockMappingStartToken),
    )
    back = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)
    depth = 0
    try:
        for token in yaml.scan(text, Loader=SafeLoader):
            depth += isinstance(token, deeper) - isinstance(token, back)
            if depth > MAX_DEPTH:
                # libyaml's loader recurses on the C stack and has no limit of its own.
                where = f"{name}:{token.start_mark.line + 1}"
                raise ConfigError(where, f"is nested more than {MAX_DEPTH} levels deep")
            if isinstance(token, yaml.AliasToken):
                # A few nested aliases make gigabytes of a small file.
                raise ConfigError(f"{name}:{token.start_mark.line + 1}", "YAML aliases are not accepted")
        return yaml.load(text, Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(name, f"is neither YAML nor JSON: {error}") from error
