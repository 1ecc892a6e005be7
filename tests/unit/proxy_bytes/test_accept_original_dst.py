"""Original destinations: which socket option is asked, and how its answer is read."""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from proxy.accept.original_dst import original_destination, plain


class Socket:
    def __init__(self, answer: bytes | OSError) -> None:
        self.answer = answer
        self.asked: tuple[int, int] | None = None

    def getsockopt(self, level: int, name: int, size: int, /) -> bytes:
        self.asked = (level, name)
        if isinstance(self.answer, OSError):
            raise self.answer
        assert len(self.answer) == size
        return self.answer


FOUR = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", 8080, socket.inet_aton("10.1.0.5"))
SIX = struct.pack("=H", socket.AF_INET6) + struct.pack(
    "!HI16sI", 443, 0, socket.inet_pton(socket.AF_INET6, "fd00::5"), 0
)


@pytest.mark.parametrize("local", ["10.0.0.1", "::ffff:10.0.0.1"])
def test_ipv4_also_on_a_dual_stack_socket(local: str) -> None:
    sock = Socket(FOUR)
    assert original_destination(sock, local) == ("10.1.0.5", 8080)
    assert sock.asked == (0, 80)


def test_ipv6() -> None:
    sock = Socket(SIX)
    assert original_destination(sock, "fd00::1") == ("fd00::5", 443)
    assert sock.asked == (41, 80)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOPROTOOPT])
def test_what_was_not_redirected_has_none(number: int) -> None:
    assert original_destination(Socket(OSError(number, "")), "10.0.0.1") is None


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (("10.0.0.1", 1), ("10.0.0.1", 1)),
        (("::ffff:10.0.0.1", 1, 0, 0), ("10.0.0.1", 1)),
        (("fe80::1%eth0", 1, 0, 2), ("fe80::1", 1)),
        (("fd00::1", 1, 0, 0), ("fd00::1", 1)),
    ],
)
def test_addresses_are_plain(address: tuple[str, int], expected: tuple[str, int]) -> None:
    assert plain(address) == expected
