"""Large bodies, down and up, on a few blocking connections."""

from __future__ import annotations

import socket
import threading

CHUNK = 256 * 1024


def transfer(port: int, direction: str, size: int, connections: int = 4) -> int:
    """Move ``size`` bytes of body in all; what was moved. Raises ``RuntimeError`` if something of it is missing."""
    share = size // connections
    failures: list[BaseException] = []

    def one() -> None:
        try:
            (_download if direction == "down" else _upload)(port, share)
        except (OSError, RuntimeError) as error:
            failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(f"a transfer failed: {failures[0]}") from failures[0]
    return share * connections


def _download(port: int, size: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 60) as sock:
        sock.sendall(f"GET /{size} HTTP/1.1\r\nHost: bulk\r\n\r\n".encode())
        buffer = bytearray(CHUNK)
        got = sock.recv_into(buffer)
        head, separator, _ = bytes(buffer[:got]).partition(b"\r\n\r\n")
        while not separator:
            more = sock.recv(4096)
            got += len(more)
            head, separator, _ = (head + more).partition(b"\r\n\r\n")
            if not more:
                break
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"answered {head[:200]!r}")
        left = size + len(head) + 4 - got
        while left > 0:
            count = sock.recv_into(buffer)
            if not count:
                raise RuntimeError(f"the response ended {left} bytes early")
            left -= count


def _upload(port: int, size: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 60) as sock:
        sock.sendall(f"POST /up HTTP/1.1\r\nHost: bulk\r\nContent-Length: {size}\r\n\r\n".encode())
        chunk = memoryview(bytes(CHUNK))
        left = size
        while left:
            piece = chunk[: min(left, CHUNK)]
            sock.sendall(piece)
            left -= len(piece)
        answer = sock.recv(4096)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"answered {answer[:200]!r}")
