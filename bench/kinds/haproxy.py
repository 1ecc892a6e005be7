"""HAProxy with one thread."""

from __future__ import annotations

from pathlib import Path

from bench import pki
from bench.kinds import Duty, Role, absent, first_match, json_line

NOTES = (
    "HAProxy reads no URI SAN: it checks the server's DNS name, and RBAC is an ACL on the client's common name",
    "HAProxy writes each log line by itself, to a file by way of standard output",
)
LOGS_TO_STDOUT = True

_HTTP_LOG = json_line(
    {
        "start_time": "%trg",
        "method": "%HM",
        "path": "%{+E}HP",
        "protocol": "%HV",
        "response_code": "%ST",
        "response_flags": "%tsc",
        "response_code_details": "%rc",
        "bytes_received": "%U",
        "bytes_sent": "%B",
        "duration": "%Ta",
        "upstream_service_time": "%Tr",
        "x_forwarded_for": "%[capture.req.hdr(0),json(utf8s)]",
        "user_agent": "%[capture.req.hdr(1),json(utf8s)]",
        "request_id": "%[var(txn.id),json(utf8s)]",
        "authority": "%[capture.req.hdr(2),json(utf8s)]",
        "upstream_host": "%si:%sp",
        "upstream_cluster": "%b",
        "downstream_remote_address": "%ci:%cp",
        "route_name": "%f",
    }
)
_TCP_LOG = json_line(
    {
        "start_time": "%T",
        "duration": "%Tt",
        "response_flags": "%ts",
        "bytes_received": "%U",
        "bytes_sent": "%B",
        "upstream_host": "%si:%sp",
        "upstream_cluster": "%b",
        "downstream_remote_address": "%ci:%cp",
    }
)

_COMMON = """
global
  nbthread {workers}
  maxconn 8000
  log stdout format raw local0
  stats socket {directory}/haproxy-{port}.sock mode 600
defaults
  log global
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
  retries 2
"""
_HTTP = """
frontend in
  mode http
  bind 127.0.0.1:{port}{bind}
  option forwardfor
  http-request set-header x-forwarded-proto {scheme}
  http-request set-header x-request-id %[uuid()] unless {{ req.hdr(x-request-id) -m found }}
  http-request set-var(txn.id) req.hdr(x-request-id)
  http-request capture req.hdr(x-forwarded-for) len 64
  http-request capture req.hdr(user-agent) len 128
  http-request capture req.hdr(host) len 128
{policy}
  log-format '{log}'
  default_backend out
backend out
  mode http
  retry-on conn-failure
  {reuse}
  server app 127.0.0.1:{upstream}{server}
"""
_POLICY = """
  http-request deny unless { ssl_c_s_dn(CN) -m str client }
  http-request set-header x-forwarded-client-cert Subject="%[ssl_c_s_dn]"
"""
_TCP = """
frontend in
  mode tcp
  bind 127.0.0.1:{port}
  log-format '{log}'
  default_backend out
backend out
  mode tcp
  server app 127.0.0.1:{upstream}
"""


def missing(role: Role) -> str | None:
    return absent("haproxy", "haproxy")


def version() -> str:
    number = first_match(r"version (\d[\d.]*)", ["haproxy", "-v"])
    library = first_match(r"Running on OpenSSL version : (OpenSSL \S+)", ["haproxy", "-vv"])
    return f"{number}, {library}"


def command(duty: Duty, directory: Path) -> list[str]:
    text = _COMMON.format(workers=duty.workers, directory=directory, port=duty.port)
    tls = f"ca-file {directory}/ca.crt verify required"
    if duty.role == "relay":
        text += _TCP.format(port=duty.port, upstream=duty.upstream, log=_TCP_LOG)
    else:
        inbound = duty.role == "inbound"
        text += _HTTP.format(
            port=duty.port,
            bind=f" ssl crt {directory}/server.pem {tls}" if inbound else "",
            scheme="https" if inbound else "http",
            policy=_POLICY if inbound else "",
            log=_HTTP_LOG,
            reuse="http-reuse always" if duty.pooled else "http-reuse never\n  option http-server-close",
            upstream=duty.upstream,
            server="" if inbound else f" ssl crt {directory}/client.pem {tls} verifyhost {pki.dns('server')}",
        )
    path = directory / f"haproxy-{duty.port}.cfg"
    path.write_text(text)
    return ["haproxy", "-db", "-f", str(path)]
