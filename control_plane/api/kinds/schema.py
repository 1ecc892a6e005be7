"""The base of all kinds' models: strict, frozen, camelCase outside, and rules that report every breach.

A model's shape is checked field by field, by pydantic. Rules between fields are written in :meth:`Model.rules`,
which yields any number of breaches, each with its own place; it runs on objects whose fields are well-formed,
while the other parts of the document are still checked, so one answer names all problems that can be known.
This module must not know any kind.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import InitErrorDetails, PydanticCustomError

from control_plane.api.kinds.problem import Problem, Reason, field_path


class Breach(NamedTuple):
    """One broken rule: the steps from the model to the field (camelCase), the message, the reason."""

    loc: tuple[str | int, ...]
    message: str
    reason: Reason = Reason.INVALID


def custom_error(reason: Reason, message: str) -> PydanticCustomError:
    """A pydantic error whose type is a Kubernetes cause type; braces in ``message`` stay as they are."""
    return PydanticCustomError(reason.value, "{message}", {"message": message})


class Model(BaseModel):
    """Base of every part of every kind."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=False)

    def rules(self) -> Iterator[Breach]:
        """Breaches of rules that involve several fields of this model."""
        yield from ()

    @model_validator(mode="after")
    def _keep_rules(self) -> Self:
        breaches = [
            InitErrorDetails(type=custom_error(b.reason, b.message), loc=b.loc, input=None)
            for b in self.rules()
        ]
        if breaches:
            raise ValidationError.from_exception_data(type(self).__name__, breaches)
        return self


_REASONS = {
    "missing": (Reason.REQUIRED, "is required"),
    "extra_forbidden": (Reason.INVALID, "unknown field"),
    "too_long": (Reason.TOO_MANY, ""),
    "too_short": (Reason.REQUIRED, ""),
    "string_too_long": (Reason.TOO_LONG, ""),
    "string_too_short": (Reason.REQUIRED, ""),
    "literal_error": (Reason.NOT_SUPPORTED, ""),
    "enum": (Reason.NOT_SUPPORTED, ""),
}
_KNOWN = {reason.value for reason in Reason}


def problems_of(error: ValidationError) -> list[Problem]:
    """Every error of ``error`` as a :class:`Problem`, in document order of pydantic's walk, without duplicates."""
    found: dict[Problem, None] = {}
    entries = error.errors(include_url=False, include_context=True, include_input=False)
    for entry in entries:
        loc = entry["loc"]
        if loc and loc[-1] == "[key]":
            loc = loc[:-1]
        kind, message = entry["type"], entry["msg"]
        if kind == "too_short" and any(e["loc"][: len(loc)] == loc and e is not entry for e in entries):
            continue  # pydantic counts only well-formed items; their own problems are reported
        if kind in _KNOWN:
            reason = Reason(kind)
        elif kind in _REASONS:
            reason, override = _REASONS[kind]
            message = override or _lower(message)
        elif kind.endswith(("_type", "_parsing")):
            reason, message = Reason.TYPE_INVALID, _lower(message)
        else:
            reason, message = Reason.INVALID, _lower(message)
        found[Problem(field_path(loc), message, reason)] = None
    return list(found)


def _lower(message: str) -> str:
    text = message
    for subject in ("Input", "Tuple", "String", "Dictionary", "Mapping"):
        text = text.removeprefix(f"{subject} should ") if text.startswith(f"{subject} should ") else text
    if text != message:
        text = f"must {text}".replace(" after validation", "")
    return text[:1].lower() + text[1:]


def checked(test: Callable[[str], bool], message: str, reason: Reason = Reason.INVALID) -> AfterValidator:
    """A validator that refuses strings for which ``test`` is false; ``message`` may use ``{value}``."""

    def check(value: str) -> str:
        if not test(value):
            raise custom_error(reason, message.replace("{value}", repr(value)))
        return value

    return AfterValidator(check)


def matching(pattern: str, message: str) -> AfterValidator:
    """A validator that wants the whole string to match ``pattern``."""
    compiled = re.compile(pattern)
    return checked(lambda value: compiled.fullmatch(value) is not None, message)


def not_yet(advice: str) -> AfterValidator:
    """Refuses any value: for published fields that this mesh cannot honour yet. ``advice`` says what to do instead."""

    def refuse(value: Any) -> Any:
        raise custom_error(Reason.FORBIDDEN, f"is not supported yet: {advice}")

    return AfterValidator(refuse)


def is_ip(value: str) -> bool:
    """Whether ``value`` is an IPv4 or IPv6 address without a zone (a scoped address has no meaning elsewhere)."""
    try:
        return "%" not in value and bool(ipaddress.ip_address(value))
    except ValueError:
        return False


def duplicates(values: Iterable[Any]) -> Iterator[int]:
    """Indexes of the values that appeared before."""
    seen = set()
    for index, value in enumerate(values):
        if value in seen:
            yield index
        seen.add(value)


Int = Annotated[int, Strict()]
Bool = Annotated[bool, Strict()]
Port = Annotated[Int, Field(ge=1, le=65535)]
DnsLabel = Annotated[
    str,
    Field(max_length=63),
    matching(
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?",
        "{value} must be a DNS label: lower case letters, digits and '-', and begin and end with a letter or digit",
    ),
]
DnsSubdomain = Annotated[
    str,
    Field(max_length=253),
    matching(
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
        "{value} must be a DNS subdomain: labels of lower case letters, digits and '-', joined by '.'",
    ),
]
IpAddress = Annotated[str, checked(is_ip, "{value} must be an IPv4 or IPv6 address")]

_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def is_qualified_name(key: str) -> bool:
    """Whether ``key`` is a Kubernetes qualified name: an optional DNS prefix, '/', and up to 63 characters."""
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > 253 or not _LABEL_PREFIX.fullmatch(prefix)):
        return False
    return _LABEL_NAME.fullmatch(name) is not None


def label_breaches(loc: tuple[str | int, ...], labels: Mapping[str, str]) -> Iterator[Breach]:
    """What is wrong with a map of labels."""
    for key, value in labels.items():
        if not is_qualified_name(key):
            yield Breach((*loc, key), f"{key!r} is not a valid label key (like app or example.com/app)")
        if value and not _LABEL_NAME.fullmatch(value):
            yield Breach(
                (*loc, key),
                f"{value!r} is not a valid label value: up to 63 letters, digits, '-', '_' and '.', "
                "beginning and ending with a letter or digit",
            )
