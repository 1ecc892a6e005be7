"""nginx as one process."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench import pki
from bench.kinds import Duty, Role, absent, first_match, json_line

NOTES = (
    "nginx reads no URI SAN: it checks the server's DNS name, and RBAC is a map of the client's subject",
    "nginx has no statistics for each route or upstream, only the counters of stub_status",
)
LOGS_TO_STDOUT = False

_HTTP_LOG = json_line(
    {
        "start_time": "$time_iso8601",
        "method": "$request_method",
        "path": "$request_uri",
        "protocol": "$server_protocol",
        "response_code": "$status",
        "response_flags": "$request_completion",
        "response_code_details": "$upstream_status",
        "bytes_received": "$request_length",
        "bytes_sent": "$body_bytes_sent",
        "duration": "$request_time",
        "upstream_service_time": "$upstream_response_time",
        "x_forwarded_for": "$http_x_forwarded_for",
        "user_agent": "$http_user_agent",
        "request_id": "$id",
        "authority": "$http_host",
        "upstream_host": "$upstream_addr",
        "upstream_cluster": "$proxy_host",
        "downstream_remote_address": "$remote_addr:$remote_port",
        "route_name": "$server_name",
    }
)
_TCP_LOG = json_line(
    {
        "start_time": "$time_iso8601",
        "duration": "$session_time",
        "response_flags": "$status",
        "bytes_received": "$bytes_received",
        "bytes_sent": "$bytes_sent",
        "upstream_host": "$upstream_addr",
        "upstream_cluster": "app",
        "downstream_remote_address": "$remote_addr:$remote_port",
    }
)

_COMMON = """
{modules}
daemon off;
{process}
worker_processes {workers};
pid {directory}/nginx-{port}.pid;
error_log stderr error;
events {{ worker_connections 8000; }}
"""
_HTTP = """
http {{
  log_format line escape=json '{fields}';
  access_log {log} line buffer=64k flush=1s;
  client_body_temp_path {directory}/nginx-body;
  proxy_temp_path {directory}/nginx-proxy;
  fastcgi_temp_path {directory}/nginx-fastcgi;
  uwsgi_temp_path {directory}/nginx-uwsgi;
  scgi_temp_path {directory}/nginx-scgi;
  map $http_x_request_id $id {{ default $http_x_request_id; '' $request_id; }}
  map $ssl_client_s_dn $allowed {{ default 0; 'CN=client' 1; }}
  upstream app {{ server 127.0.0.1:{upstream}; {keepalive} }}
  server {{
    listen 127.0.0.1:{port} {listen};
    server_name in;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_max_body_size 0;
    client_header_timeout 1h;
    {tls}
    location / {{
      {policy}
      proxy_pass {scheme}://app;
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_max_temp_file_size 0;
      proxy_next_upstream error timeout;
      proxy_next_upstream_tries 3;
      proxy_set_header Host $http_host;
      proxy_set_header Connection {connection};
      proxy_set_header X-Request-Id $id;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      {proxy_tls}
    }}
  }}
  server {{ listen 127.0.0.1:{admin}; location / {{ stub_status; }} }}
}}
"""
_SERVER_TLS = """
    ssl_certificate {directory}/server.crt;
    ssl_certificate_key {directory}/server.key;
    ssl_client_certificate {directory}/ca.crt;
    ssl_verify_client on;
    ssl_protocols TLSv1.2 TLSv1.3;
"""
_POLICY = """
      if ($allowed = 0) { return 403; }
      proxy_set_header X-Forwarded-Client-Cert 'Subject="$ssl_client_s_dn"';
"""
_PROXY_TLS = """
      proxy_ssl_certificate {directory}/client.crt;
      proxy_ssl_certificate_key {directory}/client.key;
      proxy_ssl_trusted_certificate {directory}/ca.crt;
      proxy_ssl_verify on;
      proxy_ssl_name {name};
      proxy_ssl_protocols TLSv1.2 TLSv1.3;
"""
_TCP = """
stream {{
  log_format line escape=json '{fields}';
  access_log {log} line buffer=64k flush=1s;
  server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{upstream}; proxy_timeout 1h; tcp_nodelay on; }}
}}
"""


def missing(role: Role) -> str | None:
    lacking = absent("nginx", "nginx-light")
    if lacking is None and role == "relay" and _stream() is None:
        return "nginx's stream module is not installed (apt-get install libnginx-mod-stream)"
    return lacking


def version() -> str:
    number = first_match(r"nginx/(\S+)", ["nginx", "-v"])
    built = first_match(r"built with (OpenSSL \S+)", ["nginx", "-V"])
    return f"{number}, {first_match(r'running with (OpenSSL [^ )]+)', ['nginx', '-V']).replace('?', built)}"


def command(duty: Duty, directory: Path) -> list[str]:
    module = _stream() if duty.role == "relay" else None
    text = _COMMON.format(
        modules=f"load_module {module};" if module else "",
        process="master_process off;" if duty.workers == 1 else "",
        workers=duty.workers,
        directory=directory,
        port=duty.port,
    )
    if duty.role == "relay":
        text += _TCP.format(log=duty.log, fields=_TCP_LOG, port=duty.port, upstream=duty.upstream)
    else:
        inbound = duty.role == "inbound"
        text += _HTTP.format(
            log=duty.log,
            fields=_HTTP_LOG,
            directory=directory,
            upstream=duty.upstream,
            port=duty.port,
            admin=duty.admin,
            keepalive="keepalive 256; keepalive_requests 1000000000;" if duty.pooled else "",
            connection='""' if duty.pooled else "close",
            listen="ssl" if inbound else "",
            tls=_SERVER_TLS.format(directory=directory) if inbound else "",
            policy=_POLICY if inbound else "",
            scheme="http" if inbound else "https",
            proxy_tls="" if inbound else _PROXY_TLS.format(directory=directory, name=pki.dns("server")),
        )
    path = directory / f"nginx-{duty.port}.conf"
    path.write_text(text)
    return [shutil.which("nginx") or "nginx", "-p", str(directory), "-e", "stderr", "-c", str(path)]


def _stream() -> str | None:
    """Where the stream module is, "" if it is built in, ``None`` if it is not there."""
    built = first_match(r"(--with-stream(?:=dynamic)?)(?:\s|$)", ["nginx", "-V"])
    if built == "--with-stream":
        return ""
    directory = first_match(r"--modules-path=(\S+)", ["nginx", "-V"])
    path = Path(directory) / "ngx_stream_module.so"
    return str(path) if path.exists() else None
