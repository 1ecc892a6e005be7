"""Decides what a request would do to the store: every problem of every object, or the changes to commit.

Pure: it sees a snapshot and gives changes. It checks kinds, names, revisions and Service addresses;
references between objects are resolved by ``translate`` and shown as conditions.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from control_plane.api.kinds import KINDS, KindInfo, Problem, Reason, by_type, validate
from control_plane.api.objects import key_of, to_stored
from control_plane.api.service_addresses import Network, ServiceAddresses, is_service
from control_plane.store.base import Delete, Key, Put, Stored


class Action(Enum):
    """What happened to one object; ``kubectl apply`` uses the same words."""

    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"
    DELETED = "deleted"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Apply:
    """Create or replace ``body``.

    ``at``: where it stands in the request (``objects[2]``, or "" if it is the request), put before every field.
    ``must_exist``: ``True`` = only replace, ``False`` = only create. ``expect``: the revision on which the
    caller's change is based, if the body does not say so itself.
    """

    body: Any
    at: str = ""
    must_exist: bool | None = None
    expect: int | None = None


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete the object that ``body`` (apiVersion, kind, metadata.name, metadata.namespace) names."""

    body: Any
    at: str = ""
    missing_ok: bool = False
    expect: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of one object; ``body`` is the new document, or the deleted one."""

    key: Key
    info: KindInfo
    action: Action
    body: Mapping[str, Any]
    previous: Stored | None


class Refusal(Enum):
    """The sort of a refusal, as HTTP tells them apart."""

    INVALID = 422
    CONFLICT = 409
    MISSING = 404


@dataclass(frozen=True, slots=True)
class Verdict:
    """Either ``problems`` (all of them), or ``outcomes`` in the order of the requests and the ``changes``."""

    outcomes: Sequence[Outcome] = ()
    changes: Sequence[Put | Delete] = ()
    problems: Sequence[Problem] = ()
    refusal: Refusal = Refusal.INVALID


def admit(
    requests: Sequence[Apply | Remove],
    objects: Mapping[Key, Stored],
    *,
    service_cidr: Network,
    now: float,
    new_uid: Callable[[], str],
) -> Verdict:
    """Judge ``requests`` together. ``objects``: all that is stored; ``now``: seconds since the epoch."""
    admission = _Admission(objects, service_cidr, now, new_uid)
    for request in requests:
        if isinstance(request, Remove):
            admission.remove(request)
    # Addresses that manifests ask for come before free choice, whatever the order of the documents.
    applies = [(index, request) for index, request in enumerate(requests) if isinstance(request, Apply)]
    for index, request in sorted(applies, key=lambda item: not _asks_for_address(item[1].body)):
        admission.apply(index, request)
    return admission.verdict(requests)


class _Admission:
    __slots__ = (
        "_cidr",
        "_first",
        "_made",
        "_new_uid",
        "_now",
        "_objects",
        "_outcomes",
        "_problems",
        "_refusals",
    )

    def __init__(
        self, objects: Mapping[Key, Stored], cidr: Network, now: float, new_uid: Callable[[], str]
    ) -> None:
        self._objects = objects
        self._cidr = cidr
        self._made: ServiceAddresses | None = None
        self._now = now
        self._new_uid = new_uid
        self._first: dict[Key, str] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._problems: dict[str, list[Problem]] = {}
        self._refusals: set[Refusal] = set()

    @property
    def _addresses(self) -> ServiceAddresses:
        # Looking through all objects is for change sets that have a Service.
        if self._made is None:
            self._made = ServiceAddresses(self._cidr, self._objects.values())
        return self._made

    def verdict(self, requests: Sequence[Apply | Remove]) -> Verdict:
        if self._problems:
            ordered = [problem for request in requests for problem in self._problems.get(request.at, ())]
            worst = next(iter(self._refusals)) if len(self._refusals) == 1 else Refusal.INVALID
            return Verdict(problems=ordered, refusal=worst)
        outcomes = [self._outcomes[request.at] for request in requests]
        return Verdict(outcomes, [change for outcome in outcomes if (change := _change(outcome))])

    def remove(self, request: Remove) -> None:
        named = _named(request.body)
        if isinstance(named, list):
            self._refuse(request.at, named)
            return
        info, key = named
        if not self._only_once(request.at, key):
            return
        previous = self._objects.get(key)
        if previous is None:
            if request.missing_ok:
                self._outcomes[request.at] = Outcome(key, info, Action.ABSENT, request.body, None)
            else:
                problem = Problem("metadata.name", f"no {info.kind} {_name(key)}", Reason.INVALID)
                self._refuse(request.at, [problem], Refusal.MISSING)
            return
        if request.expect is not None and request.expect != previous.revision:
            self._refuse(request.at, [_stale(request.expect, previous)], Refusal.CONFLICT)
            return
        if is_service(key):
            self._addresses.release(key, previous.body)
        self._outcomes[request.at] = Outcome(key, info, Action.DELETED, previous.body, previous)

    def apply(self, index: int, request: Apply) -> None:
        model, problems = validate(request.body)
        if model is None:
            self._refuse(request.at, [_suggest(problem, request.body) for problem in problems])
            return
        info = by_type(request.body["apiVersion"], request.body["kind"])
        assert info is not None, "validate() knows the kind"
        key = key_of(info, request.body)
        if not self._only_once(request.at, key):
            return
        previous = self._objects.get(key)
        if not self._precondition(request, key, info, previous):
            return
        body: Mapping[str, Any] = to_stored(
            info, key, request.body, previous, now=self._now, uid=self._new_uid()
        )
        if is_service(key):
            body, problems = self._addresses.assign(key, body, previous.body if previous else None)
            if problems:
                self._refuse(request.at, problems)
                return
        if previous is None:
            action = Action.CREATED
        else:
            action = Action.UNCHANGED if previous.body == body else Action.CONFIGURED
        self._outcomes[request.at] = Outcome(key, info, action, body, previous)

    def _precondition(self, request: Apply, key: Key, info: KindInfo, previous: Stored | None) -> bool:
        if request.must_exist is False and previous is not None:
            problem = Problem("metadata.name", f"{info.kind} {_name(key)} exists already", Reason.DUPLICATE)
            self._refuse(request.at, [problem], Refusal.CONFLICT)
            return False
        if request.must_exist and previous is None:
            problem = Problem("metadata.name", f"no {info.kind} {_name(key)}", Reason.INVALID)
            self._refuse(request.at, [problem], Refusal.MISSING)
            return False
        problems = []
        metadata = request.body["metadata"]
        expect = request.expect
        if metadata.get("resourceVersion"):
            version = metadata["resourceVersion"]
            if not version.isascii() or not version.isdigit() or len(version) > 18:
                problem = Problem(
                    "metadata.resourceVersion", f"{version!r} is not a resource version", Reason.INVALID
                )
                self._refuse(request.at, [problem])
                return False
            expect = int(version)
        if expect is not None and expect != (previous.revision if previous else 0):
            problems.append(_stale(expect, previous))
        uid = previous.body.get("metadata", {}).get("uid") if previous else None
        if uid and metadata.get("uid") and metadata["uid"] != uid:
            message = f"is {uid}: the object was deleted and made anew since {metadata['uid']}"
            problems.append(Problem("metadata.uid", message, Reason.INVALID))
        if problems:
            self._refuse(request.at, problems, Refusal.CONFLICT)
        return not problems

    def _only_once(self, at: str, key: Key) -> bool:
        first = self._first.setdefault(key, at)
        if first == at:
            return True
        message = f"{key.plural} {_name(key)} is in this change set already, at {first}"
        self._refuse(at, [Problem("metadata.name", message, Reason.DUPLICATE)])
        return False

    def _refuse(self, at: str, problems: Sequence[Problem], refusal: Refusal = Refusal.INVALID) -> None:
        self._refusals.add(refusal)
        self._problems[at] = [Problem(_join(at, p.field), p.message, p.reason) for p in problems]


def _change(outcome: Outcome) -> Put | Delete | None:
    """The change that makes ``outcome`` true, provided that nothing happened to the object meanwhile."""
    if outcome.action is Action.ABSENT:
        return None
    revision = outcome.previous.revision if outcome.previous else 0
    if outcome.action is Action.DELETED:
        return Delete(outcome.key, expect=revision)
    return Put(outcome.key, outcome.body, expect=revision)


def _named(body: Any) -> tuple[KindInfo, Key] | list[Problem]:
    """What the four naming fields of a document name, or what is wrong with them; the rest is not looked at."""
    if not isinstance(body, Mapping):
        return [Problem("", "must be an object with apiVersion, kind and metadata", Reason.TYPE_INVALID)]
    metadata = body.get("metadata")
    fields = {"apiVersion": body.get("apiVersion"), "kind": body.get("kind")}
    fields["metadata.name"] = metadata.get("name") if isinstance(metadata, Mapping) else None
    problems = [
        Problem(field, "is required and must be a string", Reason.REQUIRED)
        for field, value in fields.items()
        if not isinstance(value, str) or not value
    ]
    namespace = metadata.get("namespace") if isinstance(metadata, Mapping) else None
    if namespace is not None and not isinstance(namespace, str):
        problems.append(Problem("metadata.namespace", "must be a string", Reason.TYPE_INVALID))
    if problems:
        return problems
    info = by_type(body["apiVersion"], body["kind"])
    if info is None:
        message = f"no kind {body['kind']!r} in {body['apiVersion']!r}"
        return [_suggest(Problem("kind", message, Reason.NOT_SUPPORTED), body)]
    return info, key_of(info, body)


def _suggest(problem: Problem, body: Any) -> Problem:
    """``problem``; if it is an unknown kind, with the kind that was probably meant."""
    if problem.field != "kind" or problem.reason is not Reason.NOT_SUPPORTED:
        return problem
    wanted = f"{body['apiVersion']} {body['kind']}".lower()
    types = {f"{info.api_version} {info.kind}".lower(): info for info in KINDS}
    kinds = {info.kind.lower(): info for info in KINDS}
    near = difflib.get_close_matches(body["kind"].lower(), kinds, n=1, cutoff=0.7)
    info = kinds[near[0]] if near else None
    if info is None and (close := difflib.get_close_matches(wanted, types, n=1, cutoff=0.8)):
        info = types[close[0]]
    if info is None:
        return problem
    brief = problem.message.partition(";")[0]
    hint = f"{brief}; did you mean kind {info.kind} with apiVersion {info.api_version}?"
    return Problem(problem.field, hint, problem.reason)


def _stale(expected: int, actual: Stored | None) -> Problem:
    found = f"it is at {actual.revision}" if actual else "it was deleted"
    message = f"the object was changed since {expected} ({found}): read it again and repeat the change"
    return Problem("metadata.resourceVersion", message, Reason.INVALID)


def _asks_for_address(body: Any) -> bool:
    spec = body.get("spec") if isinstance(body, Mapping) else None
    return isinstance(spec, Mapping) and bool(spec.get("clusterIP") or spec.get("clusterIPs"))


def _join(at: str, field: str) -> str:
    if not at or not field:
        return at or field
    return f"{at}{field}" if field.startswith("[") else f"{at}.{field}"


def _name(key: Key) -> str:
    return f"{key.namespace}/{key.name}"
