"""Which of several certificates a server shows: by the server name asked for, then by key type, as Envoy chooses.

It loads no certificates: numbers stand for them.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from certs.der import CertificateFields

Numbers = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """Certificates (at most one of each key type, OpenSSL picks by what the client can verify) by server name.

    ``default``: for clients that name no server. ``mismatch``: for names that no certificate has. ``wild`` is by what
    follows ``*.``.
    """

    default: Numbers
    mismatch: Numbers
    exact: dict[str, Numbers]
    wild: dict[str, Numbers]

    @classmethod
    def of(cls, leaves: Sequence[CertificateFields], *, full_scan: bool) -> Selection:
        """``full_scan``: a name that no certificate has gets what no name at all gets, else the first certificate."""
        exact: dict[str, list[int]] = {}
        wild: dict[str, list[int]] = {}
        for number, leaf in enumerate(leaves):
            # The subject counts only where there are no DNS names (RFC 9525 would not count it at all; Envoy does).
            for name in leaf.dns_names or (leaf.common_name(),):
                name = name.lower()
                if name.startswith("*."):
                    wild.setdefault(name[2:], []).append(number)
                elif name:
                    exact.setdefault(name, []).append(number)
        default = _one_of_each(leaves, range(len(leaves)))
        mismatch = default if full_scan else (0,)

        def chosen(numbers: list[int]) -> Numbers:
            """A client that cannot verify ECDSA finds no certificate of its name: it gets what a mismatch gets."""
            found = _one_of_each(leaves, numbers)
            if any(leaves[number].is_rsa for number in found):
                return found
            return found + tuple(number for number in mismatch if leaves[number].is_rsa)

        return cls(
            default,
            mismatch,
            {name: chosen(numbers) for name, numbers in exact.items()},
            {name: chosen(numbers) for name, numbers in wild.items()},
        )


def _one_of_each(leaves: Sequence[CertificateFields], numbers: Sequence[int] | range) -> Numbers:
    first: dict[bool, int] = {}
    for number in numbers:
        first.setdefault(leaves[number].is_rsa, number)
    return tuple(first.values())


def select(
    selection: Selection, engine: Callable[[Numbers], ssl.SSLContext], *, require: bool
) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], int | None]:
    """An ``sni_callback``. All contexts that it may choose are made here, not in a handshake. ``require``: a client
    must name a server that a certificate has."""
    default = engine(selection.default)
    mismatch = engine(selection.mismatch)
    exact = {name: engine(numbers) for name, numbers in selection.exact.items()}
    wild = {name: engine(numbers) for name, numbers in selection.wild.items()}

    def chosen(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        if name is None:
            if require:
                return int(ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME)
            return None
        name = name.lower()
        found = exact.get(name) or wild.get(name.partition(".")[2])
        if found is None:
            if require:
                return int(ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME)
            found = mismatch
        if found is not default:
            connection.context = found
        return None

    return chosen
