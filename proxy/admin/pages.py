"""What the admin endpoint says, in Envoy's shapes. Pages read the running sidecar; only POST pages touch it."""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from proxy.admin.clusters import clusters_json, clusters_text
from proxy.admin.config_dump import config_dump
from proxy.admin.server import Answer, Page
from proxy.admin.state import AdminState

if TYPE_CHECKING:
    from proxy.tls.identity import Identity

log = logging.getLogger(__name__)

JSON = "application/json"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
LEVELS = ("debug", "info", "warning", "error")


def readiness_pages(state: AdminState) -> dict[str, Page]:
    """The pages of the readiness port, which others may ask."""
    return {"/healthz/ready": Page(lambda query: ready(state), "whether this sidecar serves")}


def admin_pages(state: AdminState) -> dict[str, Page]:
    """All pages of the admin port."""

    def page(
        handler: Callable[[AdminState, Mapping[str, str]], Answer | Awaitable[Answer]],
        text: str,
        post: bool = False,
    ) -> Page:
        return Page(lambda query: handler(state, query), text, post)

    return {
        "/ready": Page(lambda query: ready(state), "print server state, 503 unless LIVE"),
        "/server_info": page(server_info, "print server version and status"),
        "/config_dump": page(lambda s, q: _json(config_dump(s)), "dump current configuration"),
        "/clusters": page(clusters, "upstream cluster status; ?format=json"),
        "/listeners": page(listeners, "print listener addresses"),
        "/certs": page(lambda s, q: _json(certificates(s)), "print the workload's certificates"),
        "/certs/renew": page(renew, "renew the workload's certificate now", post=True),
        "/memory": page(memory, "print current allocation/heap usage"),
        "/internals": page(internals, "count what comes and goes: tasks, timers, connections"),
        "/stats": page(stats, "print statistics; ?filter=REGEX, ?usedonly, ?format=prometheus"),
        "/stats/prometheus": page(prometheus, "statistics in Prometheus's text format"),
        "/logging": page(logging_level, "change the log level: ?level=debug", post=True),
        "/reopen_logs": page(reopen, "reopen access logs", post=True),
        "/drain": page(drain, "drain: readiness off, no new connections", post=True),
        "/drain_listeners": page(drain, "as /drain", post=True),
    }


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(json.dumps(value, indent=1) + "\n", status, JSON)


def ready(state: AdminState) -> Answer:
    """``LIVE``, or 503 with what it waits for."""
    if state.ready():
        return Answer("LIVE\n")
    return Answer(f"PRE_INITIALIZING: {_waiting_for(state)}\n", 503)


def _waiting_for(state: AdminState) -> str:
    if state.identities is not None and state.identities.last_error is not None:
        return f"identity: {state.identities.last_error}"
    if state.session is not None:
        if state.session.last_error:
            return f"configuration refused: {state.session.last_error}"
        if not state.session.complete():
            return "configuration from the control plane"
    return "starting or draining"


def server_info(state: AdminState, query: Mapping[str, str]) -> Answer:
    """Envoy's ``ServerInfo``, the parts that apply."""
    return _json(
        {
            "version": "tulle",
            "state": "LIVE" if state.ready() else "PRE_INITIALIZING",
            "uptime_current_epoch": f"{int(time.monotonic() - state.started)}s",
            "command_line_options": {"concurrency": state.hub.current.stats.server.concurrency},
            "config_version": state.hub.current.version,
            "control_plane_connected": state.ads is not None and state.ads.connected,
            "pid": os.getpid(),
            "worker_pids": state.plane.pids(),
        }
    )


async def clusters(state: AdminState, query: Mapping[str, str]) -> Answer:
    """Envoy's ``/clusters``, text or JSON."""
    hosts = (await state.plane.counted()).hosts
    found = state.hub.current.clusters.values()
    if query.get("format") == "json":
        return _json(clusters_json(found, hosts))
    return Answer(clusters_text(found, hosts))


def listeners(state: AdminState, query: Mapping[str, str]) -> Answer:
    """``name::address`` a line."""
    return Answer(
        "".join(
            f"{listener.name}::{listener.config.address}\n"
            for listener in state.hub.current.listeners.values()
            if listener.config.bind_to_port
        )
    )


def certificates(state: AdminState) -> dict[str, Any]:
    """Envoy's ``Certificates`` for the workload's own identity; empty without one."""
    manager = state.identities
    if manager is None:
        return {"certificates": []}
    # Loaded by whoever has an identity; not for the others.
    from proxy.tls.identity import IdentityError

    try:
        identity = manager.current
    except IdentityError as error:
        return {"certificates": [], "error": str(error)}
    return {
        "certificates": [
            {
                "ca_cert": [
                    {"path": str(identity.path), "days_until_expiration": "", "subject_alt_names": []}
                    for _ in identity.bundle.roots
                ],
                "cert_chain": [_leaf(identity)],
            }
        ],
        "renewals": manager.renewals,
        "failures": manager.failures,
        "last_error": manager.last_error,
    }


def _leaf(identity: Identity) -> dict[str, Any]:
    return {
        "path": str(identity.path),
        "serial_number": f"{identity.serial_number:x}",
        "subject_alt_names": [{"uri": str(identity.spiffe_id)}],
        "days_until_expiration": str(max(0, int((identity.not_after - time.time()) // 86400))),
        "valid_from": _time(identity.not_before),
        "expiration_time": _time(identity.not_after),
    }


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def memory(state: AdminState, query: Mapping[str, str]) -> Answer:
    """Envoy's ``Memory``, the part that applies: Python's allocators do not say what they hold and do not use."""
    found = await state.plane.census()
    return _json({"total_physical_bytes": str(found.get("memory_physical_size", 0))})


async def internals(state: AdminState, query: Mapping[str, str]) -> Answer:
    """What comes and goes, for whoever looks for a leak."""
    return _json(await state.plane.census())


def renew(state: AdminState, query: Mapping[str, str]) -> Answer:
    """Start a renewal; ``/certs`` shows when it is done."""
    manager = state.identities
    if manager is None:
        return Answer("this sidecar has its certificates from files\n", 409)
    task = asyncio.get_running_loop().create_task(manager.renew_now())
    state.tasks.add(task)
    task.add_done_callback(lambda done: _renewed(state, done))
    return Answer("renewing; see /certs\n", 202)


def _renewed(state: AdminState, task: asyncio.Task[Any]) -> None:
    state.tasks.discard(task)
    if not task.cancelled() and task.exception() is not None:
        log.warning("renewal on request failed: %s", task.exception())


async def stats(state: AdminState, query: Mapping[str, str]) -> Answer:
    """``name: value`` a line, sorted."""
    from proxy.observe import metrics

    if query.get("format") == "prometheus":
        return await prometheus(state, query)
    counted = await state.plane.counted()
    try:
        return Answer(
            metrics.stats_text(
                counted.stats,
                counted.clusters,
                pattern=query.get("filter"),
                used_only="usedonly" in query,
            )
        )
    except ValueError as error:
        return Answer(f"filter: {error}\n", 400)


async def prometheus(state: AdminState, query: Mapping[str, str]) -> Answer:
    """Prometheus's text exposition."""
    from proxy.observe import metrics

    counted = await state.plane.counted()
    return Answer(metrics.prometheus_text(counted.stats, counted.clusters), 200, PROMETHEUS)


def logging_level(state: AdminState, query: Mapping[str, str]) -> Answer:
    """Set the level of the application log."""
    level = query.get("level", "")
    if level not in LEVELS:
        return Answer(f"level: {level!r} is not one of {', '.join(LEVELS)}\n", 400)
    logging.getLogger().setLevel(level.upper())
    state.plane.log_level(level)
    return Answer(f"log level is {level}\n")


def reopen(state: AdminState, query: Mapping[str, str]) -> Answer:
    """After log rotation."""
    state.plane.reopen_logs()
    return Answer("OK\n")


def drain(state: AdminState, query: Mapping[str, str]) -> Answer:
    """Begin to drain; the process goes on until it is told to stop."""
    state.drain_listeners()
    return Answer("OK\n")
