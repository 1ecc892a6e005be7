"""Mutual TLS from outside: a client that opens connections to an inbound proxy, a server behind an outbound one.

``python -m bench.load.tls PORT DIRECTORY RESUME`` is the server.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
import threading
import time
from pathlib import Path

from bench import messages

_ANSWER = messages.response(16)


class Caller:
    """Opens connections with the client's certificate and makes a request on each."""

    def __init__(self, port: int, directory: Path) -> None:
        self._port = port
        self._context = _context(directory, "client", server_side=False)
        self._request = messages.request("server.default:8080")

    def open(self, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        """A connection that has served one request. Raises ``RuntimeError`` if that fails."""
        raw = socket.create_connection(("127.0.0.1", self._port), 30)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock = self._context.wrap_socket(raw, session=session)
        sock.sendall(self._request)
        answer = sock.recv(65536)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"answered {answer[:200]!r}")
        return sock

    def handshakes(self, seconds: float, *, resume: bool) -> int:
        """Open and close connections for so long; how many. Raises ``RuntimeError`` if they are not of that sort."""
        session = None
        if resume:
            with self.open() as sock:
                session = sock.session
        count = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with self.open(session) as sock:
                if bool(sock.session_reused) is not resume:
                    raise RuntimeError(f"resumed: {sock.session_reused}, wanted: {resume}")
            count += 1
        return count


def _context(directory: Path, who: str, *, server_side: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(directory / "ca.crt")
    context.load_cert_chain(directory / f"{who}.crt", directory / f"{who}.key")
    return context


def serve(port: int, directory: Path, *, resume: bool) -> None:
    """Answer every request; leave it to the clients to close. Prints of what sort each handshake was."""
    context = _context(directory, "server", server_side=True)
    context.num_tickets = 1 if resume else 0
    if not resume:
        context.options |= ssl.OP_NO_TICKET
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    while True:
        raw, _ = listener.accept()
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_answer, args=(context, raw), daemon=True).start()


def _answer(context: ssl.SSLContext, raw: socket.socket) -> None:
    try:
        with context.wrap_socket(raw, server_side=True) as sock:
            os.write(1, b"resumed\n" if sock.session_reused else b"full\n")
            heard = b""
            while more := sock.recv(65536):
                heard += more
                if heard.endswith(b"\r\n\r\n"):
                    sock.sendall(_ANSWER)
                    heard = b""
    except OSError:
        # A probe of the port, or a proxy that was stopped.
        raw.close()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]), resume=sys.argv[3] == "resume")
