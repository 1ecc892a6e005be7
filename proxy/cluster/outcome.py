"""What one attempt says of the host that it went to: a success or an error, and the code for outlier detection. Pure.

Both follow Envoy's router (``Filter::onUpstreamHeaders``, ``onUpstreamTrailers``, ``onUpstreamReset``), in which they
are not the same: a ``grpc-status`` in the trailers decides on success alone. Nobody is ejected here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from proxy.grpc import status as grpc_status
from proxy.model.exchange import Head

Result = Literal["connect_success", "connect_failed", "timeout"]
"""``LOCAL_ORIGIN_CONNECT_SUCCESS``, ``LOCAL_ORIGIN_CONNECT_FAILED`` and ``LOCAL_ORIGIN_TIMEOUT``: what happened without
an answer of the host."""

End = Literal["whole", "cut_off", "abandoned"]
"""Whether a response came to its end; ``cut_off`` by the host, ``abandoned`` by the client or because of the time."""

_CODES: Final[dict[Result, int]] = {"connect_failed": 503, "timeout": 504}


def succeeded(
    head: Head,
    *,
    grpc: bool,
    trailers: Sequence[tuple[bytes, bytes]] | None,
    empty: bool,
    end: End,
) -> bool | None:
    """Whether the host's answer counts into ``rq_success`` or ``rq_error``; ``None``: into neither.

    ``grpc``: the request was gRPC, whose HTTP status says little. ``empty``: the response was its head alone.
    """
    if 500 <= head.status < 600:
        return False
    if not grpc:
        return True
    if trailers is not None:
        found = grpc_status.of_trailers(trailers)
    elif end == "abandoned":
        return None
    elif end == "cut_off" or not empty:
        # Every call ends with a status.
        return False
    else:
        found = grpc_status.of_head(head)
    return found is not None and grpc_status.to_http(found) < 500


def response_code(head: Head, *, grpc: bool) -> int:
    """The status that outlier detection is told of a response: that of a ``grpc-status`` in its head, if it has one."""
    if grpc:
        found = grpc_status.of_head(head)
        if found is not None:
            return grpc_status.to_http(found)
    return head.status


def reset_result(reason: str) -> Result | None:
    """What outlier detection is told of a reset; ``reason`` is Envoy's, with underscores.

    Nothing of ``overflow``: that is the cluster's limit, and no fault of the host.
    """
    return None if reason == "overflow" else "connect_failed"


def result_code(result: Result) -> int | None:
    """The status that stands for ``result`` where local and external errors are not told apart
    (``DetectorHostMonitorImpl::resultToHttpCode``).

    ``connect_success`` has none: what comes over the connection is yet to be judged.
    """
    return _CODES.get(result)
