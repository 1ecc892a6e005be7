"""Role-based access control (``config.rbac.v3``): a tree of permissions and one of principals per policy."""

from __future__ import annotations

from typing import Literal, TypeAlias

from proxy.model.address import CidrRange
from proxy.model.frozen import dataclass
from proxy.model.matcher import HeaderMatcher, StringMatcher


@dataclass(frozen=True, slots=True)
class AnyRule:
    """Always true."""


@dataclass(frozen=True, slots=True)
class AndRules:
    """True if all are."""

    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class OrRules:
    """True if one is."""

    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class NotRule:
    """True if the other is not."""

    rule: Rule


@dataclass(frozen=True, slots=True)
class HeaderRule:
    """A header (``:method``, ``:path`` and ``:authority`` included). False on a connection without HTTP."""

    header: HeaderMatcher


@dataclass(frozen=True, slots=True)
class UrlPathRule:
    """The normalised path without query. False on a connection without HTTP."""

    path: StringMatcher


@dataclass(frozen=True, slots=True)
class DestinationPortRule:
    """The port that the client dialled."""

    port: int


@dataclass(frozen=True, slots=True)
class DestinationIpRule:
    """The address that the client dialled."""

    range: CidrRange


@dataclass(frozen=True, slots=True)
class RequestedServerNameRule:
    """The SNI."""

    name: StringMatcher


@dataclass(frozen=True, slots=True)
class AuthenticatedRule:
    """The peer's verified principal (its URI SAN); ``None`` asks only that there is one (mTLS)."""

    principal_name: StringMatcher | None


@dataclass(frozen=True, slots=True)
class SourceIpRule:
    """The peer's address. ``kind`` as in ``config.rbac.v3.Principal``."""

    range: CidrRange
    kind: Literal["direct_remote_ip", "remote_ip"]


Rule: TypeAlias = (
    AnyRule
    | AndRules
    | OrRules
    | NotRule
    | HeaderRule
    | UrlPathRule
    | DestinationPortRule
    | DestinationIpRule
    | RequestedServerNameRule
    | AuthenticatedRule
    | SourceIpRule
)


@dataclass(frozen=True, slots=True)
class Policy:
    """True if one permission and one principal are."""

    name: str
    permissions: tuple[Rule, ...]
    principals: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Rbac:
    """``RBAC``: ALLOW lets through what a policy matches, DENY everything else. Policies are in name order.

    As a filter its configuration may have ``rules`` absent, which is no ``Rbac`` here at all.
    """

    action: Literal["ALLOW", "DENY"]
    policies: tuple[Policy, ...]
    stat_prefix: str = ""
