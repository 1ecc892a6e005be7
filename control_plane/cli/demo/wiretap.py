"""Reads every frame that crosses a bridge (``packet(7)``) and says what an eavesdropper would see.

Run as ``python -m control_plane.cli.demo.wiretap --interface tulle0 --port 8080 --needle WORD``; it prints ``ready``,
listens until its standard input closes, then prints one JSON object. Needs CAP_NET_RAW in its network namespace.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import struct
import sys

ETH_P_ALL = 3
# <linux/if_packet.h>
SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP = 1
PACKET_MR_PROMISC = 1
#: TLS record types (RFC 8446 section 5.1) by their first byte; the second is the major version 3.
TLS_RECORDS = {0x14: "change_cipher_spec", 0x15: "alert", 0x16: "handshake", 0x17: "application_data"}


class Sighting:
    """What was seen on one TCP port."""

    def __init__(self, port: int, needle: bytes) -> None:
        self.port = port
        self.needle = needle
        self.frames = 0
        self.payload_bytes = 0
        self.plaintext_http = 0
        self.needles = 0
        self.records: dict[str, int] = {}
        self.sample = ""

    def frame(self, data: bytes) -> None:
        """Take one Ethernet frame."""
        if self.needle and self.needle in data:
            self.needles += 1
        payload = tcp_payload(data, self.port)
        if not payload:
            return
        self.frames += 1
        self.payload_bytes += len(payload)
        if payload.startswith((b"GET ", b"POST ", b"HTTP/1.")):
            self.plaintext_http += 1
        if payload[0] in TLS_RECORDS and payload[1:2] == b"\x03":
            kind = TLS_RECORDS[payload[0]]
            self.records[kind] = self.records.get(kind, 0) + 1
            if kind == "application_data" and not self.sample:
                self.sample = payload[:24].hex(" ")

    def report(self) -> dict[str, object]:
        """Everything as JSON-ready data."""
        return {
            "frames": self.frames,
            "bytes": self.payload_bytes,
            "plaintext_http": self.plaintext_http,
            "needles": self.needles,
            "tls_records": self.records,
            "sample": self.sample,
        }


def tcp_payload(frame: bytes, port: int) -> bytes:
    """The TCP payload of an Ethernet frame to or from ``port``, IPv4 or IPv6; empty if it is none."""
    ethertype = int.from_bytes(frame[12:14], "big")
    if ethertype == 0x0800:
        if frame[23] != socket.IPPROTO_TCP:
            return b""
        start = 14 + (frame[14] & 15) * 4
        end = 14 + int.from_bytes(frame[16:18], "big")
    elif ethertype == 0x86DD:
        if frame[20] != socket.IPPROTO_TCP:
            return b""
        start = 54
        end = 54 + int.from_bytes(frame[18:20], "big")
    else:
        return b""
    segment = frame[start:end]
    if len(segment) < 20 or port not in (
        int.from_bytes(segment[0:2], "big"),
        int.from_bytes(segment[2:4], "big"),
    ):
        return b""
    return segment[(segment[12] >> 4) * 4 :]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--interface", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--needle", default="")
    options = parser.parse_args()
    sighting = Sighting(options.port, options.needle.encode())
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as tap:
        tap.bind((options.interface, 0))
        # A bridge hands frames between its ports to its own device only while that is promiscuous.
        request = struct.pack("iHH8x", socket.if_nametoindex(options.interface), PACKET_MR_PROMISC, 0)
        tap.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)
        print("ready", flush=True)
        while True:
            readable, _, _ = select.select([tap, sys.stdin], [], [])
            if tap in readable:
                sighting.frame(tap.recv(65535))
            elif sys.stdin in readable and not sys.stdin.read(1):
                break
    print(json.dumps(sighting.report()), flush=True)


if __name__ == "__main__":
    main()
