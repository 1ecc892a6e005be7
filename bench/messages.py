"""The request and the response that every measurement of HTTP/1.1 sends: small, with the headers of a real call."""

from __future__ import annotations

from typing import Final

PATH: Final = "/api/v1/items?limit=20"

HEADERS: Final = {
    "User-Agent": "bench/1",
    "Accept": "application/json",
    "Authorization": "Bearer eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl",
    "Traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}

BODY: Final = 1024
"""Bytes of a small response's body."""


def request(host: str, *more: str, method: str = "GET", path: str = PATH) -> bytes:
    """The request's head; ``more`` are further header lines."""
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {host}",
        *(f"{name}: {value}" for name, value in HEADERS.items()),
    ]
    return "\r\n".join([*lines, *more, "", ""]).encode()


def response(size: int = BODY) -> bytes:
    """A whole response, as an application's server writes it."""
    return (
        f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n"
        "date: Tue, 24 Nov 2026 03:00:00 GMT\r\nserver: app\r\n\r\n"
    ).encode() + b"x" * size
