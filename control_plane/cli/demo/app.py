"""A tiny HTTP app for the demo: it answers every request with its name. It knows nothing of the mesh.

Run it as ``python -m control_plane.cli.demo.app --name web-v1 --listen 0.0.0.0:8080``; it prints the address it
listens on. Standard library only, as a stand-in for whatever a user runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Answers with JSON: who served, which path, and who the sidecar says is calling."""

    protocol_version = "HTTP/1.1"
    app_name = "app"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", "0")))
        self._answer()

    def _answer(self) -> None:
        body = json.dumps(
            {
                "served-by": self.app_name,
                "method": self.command,
                "path": self.path,
                "caller": self.headers.get("x-forwarded-client-cert", ""),
            }
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("x-served-by", self.app_name)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """The sidecar writes the access log."""


class Server(ThreadingHTTPServer):
    """One thread a connection; a burst of connections is queued, not refused."""

    request_queue_size = 256
    daemon_threads = True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--listen", default="127.0.0.1:0")
    options = parser.parse_args()
    host, _, port = options.listen.rpartition(":")
    handler = type("NamedHandler", (Handler,), {"app_name": options.name})
    with Server((host, int(port)), handler) as server:
        print(f"listening {host}:{server.server_address[1]}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            sys.exit(0)


if __name__ == "__main__":
    main()
