"""``python -m bench.load.bulk_server PORT``: gives ``GET /<size>`` that many bytes, and swallows what is posted."""

from __future__ import annotations

import os
import socket
import sys
import threading

from bench.load.bulk import CHUNK


def serve(sock: socket.socket, source: int) -> None:
    """Answer the requests of one connection; ``source`` is a file of ``CHUNK`` bytes."""
    buffer = bytearray(CHUNK)
    rest = b""
    with sock:
        while True:
            while b"\r\n\r\n" not in rest:
                more = sock.recv(65536)
                if not more:
                    return
                rest += more
            head, _, rest = rest.partition(b"\r\n\r\n")
            method, target, _ = head.split(b" ", 2)
            if method == b"GET":
                left = int(target[1:])
                sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % left)
                while left:
                    left -= os.sendfile(sock.fileno(), source, 0, min(left, CHUNK))
                continue
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            left = int(length) - len(rest)
            rest = b""
            while left > 0:
                count = sock.recv_into(buffer, min(left, CHUNK))
                if not count:
                    return
                left -= count
            sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


def answer(sock: socket.socket, source: int) -> None:
    """As ``serve``; a connection that is cut is no event."""
    try:
        serve(sock, source)
    except (BrokenPipeError, ConnectionResetError):
        pass


def main() -> None:
    source = os.memfd_create("bulk")
    os.write(source, bytes(CHUNK))
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=answer, args=(sock, source), daemon=True).start()


if __name__ == "__main__":
    main()
