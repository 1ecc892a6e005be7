"""Istio's security kinds: PeerAuthentication and AuthorizationPolicy.

A policy that is not understood whole is refused whole: dropping a condition would let in, or lock out,
callers whom its author did not mean. This module must not look at other objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from control_plane.api.kinds.meta import Resource, WorkloadSelector
from control_plane.api.kinds.problem import Reason
from control_plane.api.kinds.schema import Breach, Model, custom_error, not_yet


class MutualTLS(Model):
    mode: Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"] = "UNSET"


class PeerAuthenticationSpec(Model):
    selector: WorkloadSelector | None = None
    mtls: MutualTLS | None = None
    port_level_mtls: Mapping[str, MutualTLS] | None = None

    def rules(self) -> Iterator[Breach]:
        if self.port_level_mtls is None:
            return
        if self.selector is None or not self.selector.match_labels:
            yield Breach(("portLevelMtls",), "requires a selector with matchLabels", Reason.FORBIDDEN)
        if not self.port_level_mtls:
            yield Breach(("portLevelMtls",), "must have at least one port", Reason.REQUIRED)
        for port in self.port_level_mtls:
            if not is_port_number(port):
                yield Breach(("portLevelMtls", port), f"{port!r} must be a port between 1 and 65535")


class PeerAuthentication(Resource):
    """``security.istio.io/v1`` PeerAuthentication: by workload over by namespace over by mesh."""

    spec: PeerAuthenticationSpec = PeerAuthenticationSpec()


def is_port_number(value: str) -> bool:
    """Whether ``value`` is 1 to 65535 in plain decimal digits."""
    return (
        value.isascii()
        and value.isdigit()
        and len(value) <= 5
        and value[0] != "0"
        and 1 <= int(value) <= 65535
    )


Values = Annotated[tuple[str, ...], Field(min_length=1)]
"""A list of alternatives: absent means "any"; present it must not be empty, as Istio's own validation wants."""


class Source(Model):
    """Who calls; all given fields must hold."""

    principals: Values | None = None
    not_principals: Values | None = None
    namespaces: Values | None = None
    not_namespaces: Values | None = None
    service_accounts: Annotated[Any, not_yet("use principals")] = None
    not_service_accounts: Annotated[Any, not_yet("use notPrincipals")] = None
    request_principals: Annotated[Any, not_yet("there is no request authentication")] = None
    not_request_principals: Annotated[Any, not_yet("there is no request authentication")] = None
    ip_blocks: Annotated[Any, not_yet("match principals or namespaces")] = None
    not_ip_blocks: Annotated[Any, not_yet("match principals or namespaces")] = None
    remote_ip_blocks: Annotated[Any, not_yet("match principals or namespaces")] = None
    not_remote_ip_blocks: Annotated[Any, not_yet("match principals or namespaces")] = None
    trust_domains: Annotated[Any, not_yet("use principals")] = None
    not_trust_domains: Annotated[Any, not_yet("use notPrincipals")] = None

    def rules(self) -> Iterator[Breach]:
        fields = {
            "principals": self.principals,
            "notPrincipals": self.not_principals,
            "namespaces": self.namespaces,
            "notNamespaces": self.not_namespaces,
        }
        yield from _value_rules(fields, "a source")


class Operation(Model):
    """What is called; all given fields must hold. On a TCP port an ALLOW rule with HTTP fields never matches."""

    hosts: Annotated[Any, not_yet("match paths, methods or ports")] = None
    not_hosts: Annotated[Any, not_yet("match paths, methods or ports")] = None
    ports: Values | None = None
    not_ports: Values | None = None
    methods: Values | None = None
    not_methods: Values | None = None
    paths: Values | None = None
    not_paths: Values | None = None

    def rules(self) -> Iterator[Breach]:
        fields = {
            "ports": self.ports,
            "notPorts": self.not_ports,
            "methods": self.methods,
            "notMethods": self.not_methods,
            "paths": self.paths,
            "notPaths": self.not_paths,
        }
        yield from _value_rules(fields, "an operation")
        for field in ("ports", "notPorts"):
            for index, port in enumerate(fields[field] or ()):
                if port and not is_port_number(port):
                    yield Breach((field, index), f"{port!r} must be a port between 1 and 65535")
        for field in ("paths", "notPaths"):
            for index, path in enumerate(fields[field] or ()):
                if path and not path.startswith(("/", "*")):
                    yield Breach(
                        (field, index), f"{path!r} must start with '/' or '*', or it matches nothing"
                    )


def _value_rules(fields: Mapping[str, tuple[str, ...] | None], what: str) -> Iterator[Breach]:
    if all(values is None for values in fields.values()):
        yield Breach(
            (), f"{what} must have at least one field (leave the list out to match any)", Reason.REQUIRED
        )
    for field, values in fields.items():
        for index, value in enumerate(values or ()):
            if not value:
                yield Breach((field, index), "must not be empty", Reason.REQUIRED)
            elif field in ("paths", "notPaths") and ("{" in value or "}" in value):
                yield Breach((field, index), "path templates are not supported yet", Reason.FORBIDDEN)
            elif "*" in value.strip("*") or value.count("*") > 1:
                yield Breach((field, index), f"{value!r} may have one '*', at its beginning or end")


class From(Model):
    source: Source


class To(Model):
    operation: Operation


class AuthorizationRule(Model):
    """Matches when any of ``from`` and any of ``to`` do; an absent list matches anything."""

    from_: Annotated[
        Annotated[tuple[From, ...], Field(min_length=1, max_length=512)] | None, Field(alias="from")
    ] = None
    to: Annotated[tuple[To, ...], Field(min_length=1)] | None = None
    when: Annotated[Any, not_yet("conditions cannot be evaluated")] = None


def _action(value: Any) -> Any:
    if value in ("AUDIT", "CUSTOM"):
        raise custom_error(Reason.FORBIDDEN, f"action {value} is not supported yet: use ALLOW or DENY")
    return value


class AuthorizationPolicySpec(Model):
    selector: WorkloadSelector | None = None
    target_ref: Annotated[Any, not_yet("use selector")] = None
    target_refs: Annotated[Any, not_yet("use selector")] = None
    action: Annotated[Literal["ALLOW", "DENY"], BeforeValidator(_action)] = "ALLOW"
    rules_: Annotated[tuple[AuthorizationRule, ...], Field(alias="rules", max_length=512)] = ()
    provider: Annotated[Any, not_yet("there is no external authorizer")] = None

    def rules(self) -> Iterator[Breach]:
        if self.action == "DENY" and not self.rules_:
            yield Breach(
                ("rules",), "is required with action DENY, which otherwise denies nothing", Reason.REQUIRED
            )


class AuthorizationPolicy(Resource):
    """``security.istio.io/v1`` AuthorizationPolicy: DENY is asked first, then ALLOW; an empty spec denies all."""

    spec: AuthorizationPolicySpec = AuthorizationPolicySpec()
