"""Listening sockets: open them, nothing more."""

from __future__ import annotations

import socket

from proxy.model.address import SocketAddress


def listen(address: SocketAddress, *, ipv4_compat: bool, backlog: int, reuse_port: bool) -> socket.socket:
    """A listening, non-blocking TCP socket. Raises ``OSError`` whose text names the address.

    ``ipv4_compat``: an IPv6 wildcard takes IPv4 connections too. ``reuse_port``: others may listen there, too.
    """
    sock = _bind(address, ipv4_compat=ipv4_compat, reuse_port=reuse_port)
    try:
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise _named(error, address) from error
    return sock


def probe(address: SocketAddress, *, ipv4_compat: bool) -> None:
    """Raise ``OSError`` if somebody listens there, even if they would let others join (``reuse_port``)."""
    _bind(address, ipv4_compat=ipv4_compat, reuse_port=False).close()


def _bind(address: SocketAddress, *, ipv4_compat: bool, reuse_port: bool) -> socket.socket:
    six = ":" in address.host
    sock = socket.socket(
        socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK
    )
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if six:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if ipv4_compat else 1)
        sock.bind((address.host, address.port))
    except OSError as error:
        sock.close()
        raise _named(error, address) from error
    return sock


def _named(error: OSError, address: SocketAddress) -> OSError:
    return OSError(error.errno, f"cannot listen on {address}: {error.strerror}")
