"""A gRPC app and a caller of one, as programs for pods.

``python -m tests.support.grpc_app serve NAME HOST:PORT`` says ``listening`` and answers every unary call with its
name and the call's path; ``call HOST:PORT PATH`` prints the status code of a call and what was answered, as JSON.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

WAIT = 20.0


class _Names(grpc.GenericRpcHandler):
    def __init__(self, name: str) -> None:
        self._name = name

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        answer = json.dumps({"name": self._name, "path": details.method}).encode()
        return grpc.unary_unary_rpc_method_handler(lambda request, context: answer)


def serve(name: str, address: str) -> None:
    """Serve until the process is ended."""
    server = grpc.server(ThreadPoolExecutor(4), handlers=[_Names(name)])
    server.add_insecure_port(address)
    server.start()
    print("listening", flush=True)
    server.wait_for_termination()


def call(address: str, path: str) -> dict[str, Any]:
    """The status code's name and what was answered."""
    with grpc.insecure_channel(address, [("grpc.enable_retries", 0)]) as channel:
        try:
            answer = channel.unary_unary(path)(b"", timeout=WAIT)
        except grpc.RpcError as error:
            return {"code": error.code().name, "details": error.details()}
    return {"code": "OK", **json.loads(answer)}


if __name__ == "__main__":
    action, *words = sys.argv[1:]
    if action == "serve":
        serve(*words)
    else:
        print(json.dumps(call(*words)))
