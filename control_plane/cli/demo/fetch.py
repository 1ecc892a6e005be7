"""One HTTP request from inside a pod: prints ``{"status": 200, "body": "..."}``. Standard library only."""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from urllib.parse import urlsplit


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--method", default="GET")
    parser.add_argument("--connect", help="HOST:PORT to connect to instead of the URL's")
    parser.add_argument("url")
    options = parser.parse_args()
    parts = urlsplit(options.url)
    host, port = parts.hostname or "", parts.port or 80
    if options.connect:
        host, _, text = options.connect.rpartition(":")
        port = int(text)
    connection = http.client.HTTPConnection(host, port, timeout=15)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(options.method, target, headers={"host": parts.netloc, "user-agent": "demo-fetch"})
        answer = connection.getresponse()
        body = answer.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        print(f"{options.url}: {error or type(error).__name__}", file=sys.stderr)
        return 1
    print(json.dumps({"status": answer.status, "body": body}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
